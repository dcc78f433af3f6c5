"""Exports of vLLM: its file of keys is made first, and it listens where no network reaches it."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from corral.export.subject import Subject
from corral.inventory.hosts import parse_host
from corral.planning.fleet import plan_fleet
from tests.samples import host
from tests.unit.exports import Started, exported, started, telling_program
from tests.unit.vllm_samples import ASKED, ON_CPU, ON_SOCKET, planner

KEY = "a-key-of-twenty-characters-or-more"
ALIASES = {"small-safetensors": {"port": 8000}}
ROUTE = "POST /invocations"


def subject(spec: dict[str, Any] = ASKED, **changes: Any) -> Subject:
    """An instance of vLLM behind a gateway."""
    trusted = {"aliases": ALIASES, "trusted_networks": ["10.0.0.0/24"]}
    gateway = parse_host("gw", {"ssh_hostname": "10.0.0.2", "gateway": trusted})
    one = host(spec, name="one", member_address="10.0.0.1")
    hosts = (one, gateway) if spec.get("port") else (one,)
    plan = plan_fleet(hosts, planner(**{**ON_CPU, **changes})).plan("one")
    return Subject(
        host="one", instance=plan.instances[0], release=plan.releases[0], kind="vllm"
    )  # fmt: skip


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A key file in a place with a space."""
    path = tmp_path / "the keys"
    path.write_text(f"# of nobody\n\n{KEY}\n")
    return path


def program(folder: Path) -> str:
    """An interpreter, and a server that tells its arguments if it is asked to serve."""
    path, server = folder / "python", telling_program(folder)
    text = f'#!/bin/sh\n[ "$2" = -c ] && exec {sys.executable} "$@"\nexec {server} "$@"\n'
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def run_script(about: Subject, keys: Path, **environment: str) -> Started:
    path = keys.with_name("start")
    path.write_text(exported("script", about))
    given = {
        "CORRAL_PROGRAM": program(keys.parent),
        "CORRAL_KEYS": str(keys),
        "XDG_RUNTIME_DIR": str(keys.parent),
        **environment,
    }
    return started("bash", str(path), **given)


def config_of(argv: list[str]) -> Path:
    return Path(argv[argv.index("--config") + 1])


def test_a_script_makes_the_file_of_keys_and_starts_the_command_line(keys: Path) -> None:
    about = subject(extra_flags=["--numa-bind-cpus", "it's $HOME"])
    done = run_script(about, keys)
    assert (done.code, done.err) == (0, "")
    config = config_of(done.argv)
    wanted = list(about.instance.argv)
    wanted[wanted.index("--config") + 1] = str(config)
    assert done.argv[1:] == wanted[1:]
    assert json.loads(config.read_text()) == {"api-key": [KEY]}
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert done.environment["HF_HUB_OFFLINE"] == "1"
    assert KEY not in " ".join([*done.argv, *done.environment.values()])
    # A second start replaces it.
    keys.write_text(f"{KEY}-2\n")
    assert run_script(about, keys).code == 0
    assert json.loads(config.read_text()) == {"api-key": [f"{KEY}-2"]}


@pytest.mark.parametrize("text", ["", "# none\n", f"-{KEY}\n"])
def test_a_script_starts_nothing_without_a_key_that_it_can_take(text: str, keys: Path) -> None:
    keys.write_text(text)
    done = run_script(subject(), keys)
    assert done.code == 1
    assert not done.argv
    assert "Next: " in done.err
    assert KEY not in done.err


def test_a_script_trusts_no_folder_of_somebody_else(keys: Path) -> None:
    for path in keys.parent.glob("corral-glm-*"):
        path.rmdir()
    elsewhere = keys.parent / "elsewhere"
    elsewhere.mkdir()
    (keys.parent / f"corral-glm-{os.getuid()}").symlink_to(elsewhere)
    done = run_script(subject(), keys)
    assert done.code == 1
    assert "belongs to somebody else. Next: set XDG_RUNTIME_DIR" in done.err
    assert not list(elsewhere.iterdir())


def test_an_environment_file_says_how_the_file_of_keys_is_made(keys: Path, tmp_path: Path) -> None:
    about = subject()
    text = exported("env", about)
    path, place = tmp_path / "env file", tmp_path / "run"
    moved = text.replace("/etc/corral/keys/glm", str(keys.rename(tmp_path / "keys")))
    path.write_text(moved.replace("/run/corral-glm", str(place)))
    shown = re.search(r"^# shell: +(mkdir.*?CORRAL_EXTRA_ARGS\"\))$", text, re.S | re.M)
    assert shown is not None
    line = shown[1].replace("\n#", "\n").replace("/run/corral-glm", str(place))
    line = line.replace("FILE", f"'{path}'").replace(about.instance.argv[0], program(tmp_path))
    done = started("bash", "-c", line)
    assert (done.code, done.err) == (0, "")
    assert json.loads((place / "vllm.yaml").read_text()) == {"api-key": [KEY]}
    assert config_of(done.argv) == place / "vllm.yaml"
    assert done.argv[1:] == [
        word.replace("/run/corral-glm", str(place)) for word in about.instance.argv[1:]
    ]
    for shown_line in ("RuntimeDirectory=corral-glm", "ExecStartPre=", "$CORRAL_PREPARE_ARGS"):
        assert shown_line in text


def service(about: Subject) -> Any:
    (found,) = yaml.safe_load(exported("compose", about))["services"].values()
    return found


def as_run(words: list[str]) -> list[str]:
    return [word.replace("$$", "$") for word in words]


def test_a_container_makes_the_file_of_keys_before_the_server(keys: Path, tmp_path: Path) -> None:
    about = subject()
    found = service(about)
    python, source = program(tmp_path), keys.rename(tmp_path / "keys")
    entry = [
        word.replace(about.instance.argv[0], python)
        .replace("/run/secrets/api-keys", str(source))
        .replace("/tmp/vllm.yaml", str(tmp_path / "vllm.yaml"))
        for word in as_run(found["entrypoint"])
    ]
    done = started(*entry, *as_run(found["command"]))
    assert (done.code, done.err) == (0, "")
    assert json.loads((tmp_path / "vllm.yaml").read_text()) == {"api-key": [KEY]}
    wanted = list(about.instance.argv[1:])
    wanted[wanted.index("--config") + 1] = "/tmp/vllm.yaml"
    wanted[wanted.index("--host") + 1] = "0.0.0.0"
    assert done.argv[1:] == wanted


def test_a_container_has_what_the_unit_has() -> None:
    found = service(subject())
    assert found["environment"]["HOME"] == "/tmp"
    assert found["environment"]["VLLM_NO_USAGE_STATS"] == "1"
    assert found["tmpfs"] == ["/tmp:exec"]
    assert found["ulimits"]["nofile"] == 65535
    assert found["shm_size"] == "8gb"
    assert found["stop_grace_period"] == "60s"
    assert found["secrets"] == ["api-keys"]


@pytest.mark.parametrize(
    ("address", "listens"), [("0.0.0.0", "127.0.0.1"), ("10.0.0.1", "127.0.0.1"), ("::", "::1")]
)
def test_beside_a_unit_no_network_reaches_it(address: str, listens: str, keys: Path) -> None:
    about = subject({**ASKED, "address": address})
    published = f"[{listens}]" if ":" in listens else listens
    assert service(about)["ports"] == [f"{published}:8001:8001"]
    for form in ("script", "env", "compose"):
        assert f"{ROUTE} needs no key" in " ".join(exported(form, about).split("\n# ")), form
    done = run_script(about, keys)
    assert done.argv[done.argv.index("--host") + 1] == listens
    assert f"--host {listens}" in exported("env", about)


def test_on_a_socket_a_left_one_is_removed_and_keys_are_made() -> None:
    about = subject(ON_SOCKET, listen="unix")
    found = service(about)
    assert found["entrypoint"][2].startswith('rm -f -- "$$0" && ')
    assert found["entrypoint"][3] == "/run/corral-glm/vllm.sock"
    assert found["network_mode"] == "none"
