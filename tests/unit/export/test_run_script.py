"""run.sh of an instance in an image: started, asked, stopped; a stand-in for apptainer runs it."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.export import FORMS
from corral.export.subject import Subject
from tests.ports import free_port
from tests.samples import CHAT, GPU, ROOT
from tests.unit.exports import exported, subject

BOXED: dict[str, Any] = {**CHAT, "runtime": "apptainer"}
KEY = "a-key-of-twenty-characters-or-more"
# Runs what follows the image, and writes down all words; the server is a listener on its port.
CONTAINER = """#!{python} -I
import os, socket, sys
words = sys.argv[1:]
open(os.environ["WORDS"], "w").write("\\0".join(words))
inside = words[words.index(os.environ["IMAGE"]) + 1:]
server = socket.create_server(("127.0.0.1", int(inside[inside.index("--port") + 1])))
print("it listens", flush=True)
while True:
    server.accept()[0].close()
"""


class Site:
    """A user's folder with an image, weights and keys, and the script."""

    def __init__(self, folder: Path, about: Subject) -> None:
        self.folder, self.port = folder, free_port()
        self.instance = about.instance
        self.image, self.words = folder / "an image.sif", folder / "words"
        self.image.write_bytes(b"image")
        (folder / "keys").write_text(f"# mine\n{KEY}\n")
        model = Path(self.instance.argv[self.instance.argv.index("--model") + 1])
        weights = folder / "weights" / model.relative_to("/models")
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"GGUF")
        container = folder / "container"
        container.write_text(CONTAINER.format(python=sys.executable))
        container.chmod(0o755)
        text = exported("script", about).replace("port=8001", f"port={self.port}")
        (folder / "run.sh").write_text(text.replace("--port 8001", f"--port {self.port}"))

    def run(self, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run the script without a user's systemd."""
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.folder), "CORRAL_WITHOUT_SYSTEMD": "1",
            "CORRAL_PROGRAM": str(self.folder / "container"), "CORRAL_IMAGE": str(self.image),
            "CORRAL_MODELS": str(self.folder / "weights"), "CORRAL_KEYS": str(self.folder / "keys"),
            "WORDS": str(self.words), "IMAGE": str(self.image), **changes,
        }  # fmt: skip
        return subprocess.run(
            ["bash", str(self.folder / "run.sh"), *words], env=environment, text=True,
            capture_output=True, check=False, timeout=120,
        )  # fmt: skip

    def log(self) -> str:
        return (self.folder / ".local/state/corral/chat/log").read_text()

    def pid(self) -> int:
        return int((self.folder / ".local/state/corral/chat/pid").read_text().split()[0])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, subject(BOXED))
    yield made
    made.run("stop")


def until_it_listens(site: Site) -> None:
    while "it listens" not in site.log():
        assert site.run("status").returncode == 0, site.log()


def test_it_starts_is_asked_and_stops(site: Site) -> None:
    assert site.run("status").returncode == 3
    started = site.run("start")
    assert started.returncode == 0, started.stderr
    until_it_listens(site)
    status = site.run("status")
    assert status.returncode == 0
    assert f"chat runs (pid {site.pid()}), listens on 127.0.0.1:{site.port}" in status.stdout
    assert "runs already" in site.run("start").stdout
    stopped = site.run("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "chat is stopped\n"), stopped.stderr
    assert site.run("status").returncode == 3


def test_it_outlives_the_session_that_started_it(site: Site) -> None:
    site.run("start")
    until_it_listens(site)
    assert os.getsid(site.pid()) == site.pid()


def test_a_restart_is_another_process(site: Site) -> None:
    site.run("start")
    until_it_listens(site)
    before = site.pid()
    assert site.run("restart").returncode == 0
    assert site.pid() != before


def test_the_server_gets_the_command_line_of_the_unit(site: Site) -> None:
    site.run("start")
    until_it_listens(site)
    words = site.words.read_text().split("\0")
    inside = words[words.index(str(site.image)) + 1 :]
    planned = list(site.instance.argv)
    planned[planned.index("--api-key-file") + 1] = "/run/secrets/api-keys"
    planned[planned.index("--port") + 1] = str(site.port)
    assert inside == planned
    assert {"--containall", "--cleanenv", "--no-home"} <= set(words)
    assert f"{site.folder}/weights:/models:ro" in words
    assert KEY not in "".join(words)


def test_a_number_of_another_process_is_not_taken_for_it(site: Site) -> None:
    site.run("start")
    until_it_listens(site)
    site.run("stop")
    record = site.folder / ".local/state/corral/chat/pid"
    record.write_text(f"{os.getpid()} 1\n")
    assert site.run("status").returncode == 3
    assert site.run("stop").returncode == 0


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"CORRAL_PROGRAM": "no-such-program"}, "is not installed"),
        ({"CORRAL_IMAGE": "/nowhere.sif"}, "/nowhere.sif is not readable"),
        ({"CORRAL_MODELS": "/nowhere"}, "/nowhere is no folder"),
        ({"CORRAL_MODEL": "/models/other.gguf"}, "weights/other.gguf is missing"),
        ({"CORRAL_KEYS": "/dev/null"}, "there is no key in it"),
    ],
)
def test_what_is_missing_is_said_and_nothing_starts(
    site: Site, changes: dict[str, str], what: str
) -> None:
    refused = site.run("start", **changes)
    assert refused.returncode == 1
    assert what in refused.stderr
    assert "Next: " in refused.stderr
    assert site.run("status").returncode == 3


def test_a_taken_port_is_said(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.port)):
        refused = site.run("start")
    assert refused.returncode == 1
    assert f"port {site.port} is taken" in refused.stderr


def test_an_image_that_is_not_the_locked_one_does_not_start(tmp_path: Path) -> None:
    from tests.unit.planning.test_images import site_plan  # noqa: PLC0415

    planned = site_plan()
    about = Subject(
        host="lab-1", instance=planned.instances[0], release=planned.releases[0], kind="llama.cpp"
    )
    made = Site(tmp_path, about)
    refused = made.run("start")
    assert "an image.sif is not the planned one" in refused.stderr
    text = made.folder / "run.sh"
    digest = hashlib.sha256(b"image").hexdigest()
    text.write_text(text.read_text().replace("5" * 64, digest))
    assert made.run("start").returncode == 0
    made.run("stop")


def test_gpus_and_variables_are_those_of_the_unit() -> None:
    text = exported("script", subject({**BOXED, "gpus": [1, 0]}, data={"gpus": GPU}))
    assert "--nv\n" in text
    assert "--env CUDA_VISIBLE_DEVICES=1,0\n" in text


@pytest.mark.parametrize("form", ["env", "compose"])
def test_other_forms_say_which_one_does(form: str) -> None:
    with pytest.raises(CorralError, match="cannot start") as refused:
        FORMS[form](subject(BOXED), ROOT / "templates")
    assert refused.value.next_step == "`corral export lab-1/chat --as script`"
