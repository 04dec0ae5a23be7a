"""Alerts and dashboard against a live Prometheus, with nodes that it scrapes.

    pip install -r requirements.txt
    PROMETHEUS_URL=http://127.0.0.1:9090 pytest deploy/tests/test_dashboard.py

For a minute, the nodes need a load of rooms, calls and connections that come and go, such as
`roomcast-loadtest run chat --call-rate 10 --churn-reconnects 1`.
"""

import itertools
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/roomcast.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TITLES = [panel["title"] for panel in PANELS]
VARIABLES = [variable for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
GROUPS = yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
RULE_TESTS = (ROOT / "deploy/prometheus/rules_test.yaml").read_text()
TROUBLESHOOTING = (ROOT / "docs/guides/troubleshooting.md").read_text()
MONITORING = (ROOT / "docs/guides/monitoring.md").read_text()
METRICS = (ROOT / "docs/reference/metrics.md").read_text()
RUNBOOKS = "https://github.com/roomcast/roomcast/blob/main/docs/guides/troubleshooting.md"

# How long the load may take until every query has something to say: rates need two scrapes.
DEADLINE = 60

# Counters that begin with the first failure, and what is drawn of them.
ONLY_AFTER_A_FAILURE = {"roomcast_notifications_failed_total"}
# The load of this test does not use the HTTP API.
ONLY_WITH_API_REQUESTS = {"roomcast_api_requests_total"}
# Metrics of nodes that fetch the keys of issuers, which those of this test do not.
ONLY_WITH_ISSUERS = {"roomcast_jwks_fetches_total", "roomcast_jwks_age_seconds"}
# Metrics of nodes with a certificate, which those of this test do not have.
ONLY_WITH_TLS = {"roomcast_tls_certificate_expiry_timestamp_seconds"}
# Metrics of nodes with backends, of which this test has none.
ONLY_WITH_BACKENDS = {
    "roomcast_backend_breaker_open",
    "roomcast_backend_cancel_notices_total",
    "roomcast_backend_calls_queued",
    "roomcast_backend_requests_in_flight",
    "roomcast_backend_requests_total",
    "roomcast_backend_stop_seconds_bucket",
}
MAY_BE_EMPTY = {
    ("Which calls fail?", "{{method}}: {{outcome}}"): "only calls that fail are counted by their code",
    ("Which API requests fail?", "{{method}} {{route}}: {{status}}"): "it leaves out what succeeds",
    ("Do publishes succeed?", "{{instance}}: {{outcome}}"): "it leaves out what is 0",
    ("Are notifications handled?", "failed: {{code}}"): "only notifications that fail are counted by their code",
    ("Are the keys of issuers fetched?", "{{issuer}}: {{result}}"): "there are no issuers",
    ("How old are the keys of issuers?", "{{issuer}}"): "there are no issuers",
    ("When do certificates expire?", "{{instance}}"): "the nodes serve no TLS",
    ("How do requests to backends end?", "{{backend}}: {{outcome}}"): "there are no backends",
    ("Which backends fail?", "{{backend}}: {{instance}}"): "there are no backends",
    ("Which backends are not called?", "{{backend}}: {{instance}}"): "there are no backends",
    ("How many requests to backends are in flight?", "{{backend}}: {{instance}}"): "there are no backends",
    ("How many calls wait for backends?", "{{backend}}: {{instance}}"): "there are no backends",
    ("How fast do cancelled requests stop?", "{{backend}}: p50"): "there are no backends",
    ("How fast do cancelled requests stop?", "{{backend}}: p99"): "there are no backends",
    ("Do backends learn which calls were cancelled?", "{{backend}}: {{outcome}}"): "there are no backends",
}
# Outside of Kubernetes there are no namespaces.
MAY_HAVE_NO_VALUES = {"namespace"}


class Prometheus:
    def __init__(self, url):
        self.url = url.rstrip("/")

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{parameters}: {error.read().decode()}")

    def query(self, expression):
        return self.get("query", query=expression)["result"]

    def label_values(self, query):
        """What Grafana's function of this name gives."""
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
        return {series[label] for series in self.get("series", **{"match[]": selector}) if label in series}


@pytest.fixture(scope="module")
def prometheus():
    url = os.environ.get("PROMETHEUS_URL")
    if not url:
        pytest.exit("PROMETHEUS_URL must be the address of a Prometheus that scrapes nodes under load", returncode=2)
    return Prometheus(url)


@pytest.fixture(scope="module")
def filled(prometheus):
    """Puts what Grafana would put for "All" in the place of a query's variables."""
    values = {"__rate_interval": "1m", "__range": "10m"}

    def filled(query):
        query = re.sub(r"\$(\w+)", lambda name: values.get(name[1], name[0]), query)
        assert "$" not in query
        return query

    for variable in VARIABLES:
        found = sorted(prometheus.label_values(filled(variable["query"]["query"])))
        values[variable["name"]] = variable.get("allValue") or f"({'|'.join(found)})"
    return filled


def targets():
    return [(panel["title"], target) for panel in PANELS for target in panel["targets"]]


def queries():
    """All of the dashboard and of the rules."""
    named = [(title, target["expr"]) for title, target in targets()]
    named += [(annotation["name"], annotation["expr"]) for annotation in DASHBOARD["annotations"]["list"]]
    return named + [(name, rule["expr"]) for name, rule in ALERTS.items()]


def metrics_in(query):
    return set(re.findall(r"\b(?:roomcast|process)_\w+", re.sub(r'"[^"]*"', "", query)))


def eventually_empty(find):
    """What is still found at the deadline."""
    ends = time.monotonic() + DEADLINE
    while (found := find()) and time.monotonic() < ends:
        time.sleep(1)
    return found


# === against Prometheus ===


def test_every_metric_in_a_query_is_there(prometheus):
    named = set().union(*(metrics_in(query) for _, query in queries()))
    assert len(named) > 30
    named -= ONLY_AFTER_A_FAILURE | ONLY_WITH_API_REQUESTS | ONLY_WITH_ISSUERS | ONLY_WITH_TLS | ONLY_WITH_BACKENDS
    assert not eventually_empty(lambda: named - set(prometheus.get("label/__name__/values")))


def test_every_query_of_a_panel_gives_series(prometheus, filled):
    shown = {(title, target["legendFormat"]): filled(target["expr"]) for title, target in targets()}
    assert len(shown) == len(targets()), "two lines of a panel have the same legend"
    assert MAY_BE_EMPTY.keys() <= shown.keys()
    wanted = {key: query for key, query in shown.items() if key not in MAY_BE_EMPTY}
    assert not eventually_empty(lambda: {key: query for key, query in wanted.items() if not prometheus.query(query)})


def test_every_query_of_dashboard_and_alerts_can_be_evaluated(prometheus, filled):
    for _, query in queries():
        prometheus.query(filled(query))


def test_every_variable_has_values(prometheus, filled):
    for variable in VARIABLES:
        found = prometheus.label_values(filled(variable["query"]["query"]))
        assert found or variable["name"] in MAY_HAVE_NO_VALUES, variable["name"]


# === the files alone ===


def test_every_metric_in_a_query_is_documented():
    documented = set(re.findall(r"^\| `(\w+)", METRICS, re.MULTILINE))
    for name, query in queries():
        roomcast = {metric for metric in metrics_in(query) if metric.startswith("roomcast_")}
        assert {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in roomcast} <= documented, name


def test_every_panel_says_what_it_shows_and_in_what_unit():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len(set(TITLES)) == len(TITLES)
    for panel in PANELS:
        unit = panel["options"]["yAxis"] if panel["type"] == "heatmap" else panel["fieldConfig"]["defaults"]
        assert panel["description"] and unit["unit"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}, panel["title"]


def test_panels_lie_beside_one_another():
    for panel in DASHBOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, panel["title"]
    for one, other in itertools.combinations(DASHBOARD["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        apart_across = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        apart_down = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart_across or apart_down, (one["title"], other["title"])


def test_every_alert_has_its_texts_and_its_runbook():
    sections = re.findall(r"^### (Roomcast\w+)$", TROUBLESHOOTING, re.MULTILINE)
    assert sections == list(ALERTS), "the sections of docs/guides/troubleshooting.md, in the order of the alerts"
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}#{name.lower()}", name


def test_every_alert_is_seen_to_fire_with_the_labels_that_its_texts_name():
    for name, rule in ALERTS.items():
        fired = re.findall(rf'ALERTS{{alertname="{name}",alertstate="firing",(.*)}}', RULE_TESTS)
        fired += re.findall(rf"alertname: {name}\n +exp_alerts:.*\n +- exp_labels: {{(.*)}}", RULE_TESTS)
        assert fired, f"{name} does not fire in rules_test.yaml"
        labels = set(re.findall(r"(\w+)(?:=|: )", fired[0]))
        named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert named <= labels, name


def test_the_panels_that_texts_name_are_there():
    texts = [TROUBLESHOOTING, MONITORING] + [panel["description"] for panel in PANELS]
    named = set(re.findall(r'"([A-Z][^"]*\?)"', " ".join(" ".join(texts).split())))
    assert named and named <= {panel["title"] for panel in DASHBOARD["panels"]}
