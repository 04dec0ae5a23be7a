"""The image, as whoever pulls it gets it: small, with nothing in it but what it is for, and able to run without rights.

IMAGE names the archive that `deploy/image` wrote. Needs root's rights, to give them up.
"""

import json
import os
import pathlib
import subprocess
import tarfile
import time
import urllib.request

import pytest

ARCHIVE = pathlib.Path(os.environ["IMAGE"])
LARGEST = 30_000_000
PUBLIC = "127.82.0.1:3000"
INTERNAL = "127.82.0.1:3001"

# ROOT USER PROGRAM…: runs it in a root that can't be written to, as that user.
RESTRICTED = """set -eu
root="$1" user="$2"; shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" "$@"
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Its configuration, and its files in a folder."""
    root = tmp_path_factory.mktemp("image")
    # As in a container; pytest makes it so that only its owner may look into it.
    root.chmod(0o755)
    with tarfile.open(ARCHIVE) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))[0]
        config = json.load(archive.extractfile(manifest["Config"]))["config"]
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(layer)) as files:
                files.extractall(root)
    return config, root


def start(image, arguments, environment=(), log=None):
    config, root = image
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", RESTRICTED, "sh", str(root), config["User"], *arguments]
    given = dict(entry.split("=", 1) for entry in config["Env"])
    return subprocess.Popen(command, env=given | dict(environment), stderr=log)


def test_it_is_small_and_has_nothing_but_what_it_is_for(image):
    _, root = image
    assert ARCHIVE.stat().st_size < LARGEST
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == {"usr/bin/roomcast", "usr/bin/roomcast-loadtest", "etc/ssl/certs/ca-certificates.crt"}


def test_it_says_what_it_is(image):
    config, root = image
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/roomcast"]
    assert config["Cmd"] == ["serve"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/bin/roomcast", "health"]
    for label in ["title", "description", "licenses", "revision"]:
        assert config["Labels"][f"org.opencontainers.image.{label}"]
    said = subprocess.check_output([root / "usr/bin/roomcast", "--version"], text=True)
    version, revision = (config["Labels"][f"org.opencontainers.image.{label}"] for label in ["version", "revision"])
    assert said.startswith(f"roomcast {version} ({revision[:7]}") and said.endswith(", release)\n")


def test_it_runs_without_rights_on_a_root_that_it_can_not_write_to(image, tmp_path):
    config, _ = image
    log = tmp_path / "log"
    environment = {"ROOMCAST_LISTEN": PUBLIC, "ROOMCAST_INTERNAL_LISTEN": INTERNAL, "ROOMCAST_DRAIN_DELAY": "0s"}
    health = config["Healthcheck"]["Test"][1:]
    node = start(image, config["Entrypoint"] + config["Cmd"] + ["--demo"], environment, log.open("w"))
    try:
        until = time.monotonic() + 20
        while start(image, health, environment).wait() != 0:
            assert node.poll() is None and time.monotonic() < until, "it is not healthy"
        with urllib.request.urlopen(f"http://{PUBLIC}/", timeout=5) as page:
            assert page.status == 200
        process = pathlib.Path("/proc", str(node.pid))
        assert "Uid:\t65532\t65532\t65532\t65532\n" in (process / "status").read_text()
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines() if line.split()[4] == "/"]
        assert [mount[5].split(",")[0] for mount in mounts] == ["ro"]
    finally:
        node.terminate()
        assert node.wait(timeout=40) == 0
    assert start(image, health, environment).wait() == 1, "nobody is there any more"
    assert "drained" in log.read_text() and "\x1b" not in log.read_text(), "what is no terminal gets no colours"
