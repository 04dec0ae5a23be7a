"""The node accepts the example of its file, which has every option, and the guide shows the same.

ROOMCAST_BIN names the node.
"""

import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy/examples/roomcast.toml"
GUIDE = ROOT / "docs/guides/node.md"


def roomcast(*arguments):
    return subprocess.run([os.environ["ROOMCAST_BIN"], *arguments], env={}, stdout=subprocess.PIPE, text=True, check=True).stdout


def defaults(schema, table=""):
    for key, option in schema["properties"].items():
        if "properties" in option:
            yield from defaults(option, f"{key}.")
        elif "title" in option:  # Lists of tables have none, and are no options.
            yield table + key, option["default"]


def examples():
    """Each option of the file, commented or not, with its value; the last one if there are several."""
    table, found = "", {}
    for line in EXAMPLE.read_text().splitlines():
        if header := re.fullmatch(r"(?:# )?\[([a-z]+)\]", line):
            table = header[1] + "."
        elif option := re.fullmatch(r"(?:# )?([a-z_]+) = .+", line):
            found[table + option[1]] = tomllib.loads(line.removeprefix("# "))[option[1]]
    return found


def test_the_example_is_accepted():
    assert f"({EXAMPLE}:" in roomcast("check", "--config", str(EXAMPLE))


def test_the_example_has_every_option_with_its_default():
    options = dict(defaults(json.loads(roomcast("config", "schema"))))
    # Where the default is to do without, the example shows what may be there.
    optional = {key for key, default in options.items() if default in ("off", False)}
    assert {key: value for key, value in examples().items() if key not in optional} == {
        key: default for key, default in options.items() if key not in optional
    }
    assert examples().keys() == options.keys()


def test_the_guide_shows_what_is_active_in_the_example():
    shown = re.search(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    assert tomllib.loads(shown) == tomllib.loads(EXAMPLE.read_text())


def test_the_nodes_of_compose_accept_the_token_that_its_command_mints(tmp_path):
    mint = re.search(r"exec node1 roomcast (token mint .*?)\n#\n", (ROOT / "deploy/compose.auth.yaml").read_text(), re.DOTALL)[1]
    secret, config, token = (tmp_path / name for name in ("secret", "tokens.toml", "token"))
    secret.write_text(os.urandom(32).hex())
    tokens = (ROOT / "deploy/examples/tokens.toml").read_text()
    config.write_text(tokens.replace("/run/secrets/token_secret", str(secret)))
    arguments = shlex.split(mint.replace("\\\n#", "").replace("/run/secrets/token_secret", str(secret)))
    token.write_text(roomcast(*arguments))
    report = roomcast("check", "--config", str(config), "--token", str(token), "--room", "user:ann", "--do", "join")
    assert "granted by rule 1" in report
