"""Pinned programs of the monitoring: installed, noticed in another version, refused where newer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from corral_shared import pins

from tests.unit.helper_modules import helper_module, program

programs = helper_module("monitoring.programs")
monitored, drift = helper_module("observe.monitored"), helper_module("monitoring.drift")
install, commands = helper_module("monitoring.install"), helper_module("system.commands")
PINNED = {
    "package": "grafana", "version": "12.4.*", "catalog": "catalog/programs/grafana.toml",
    "has_source": False, "key_url": None, "key_fingerprint": None, "keyring": "/k",
}  # fmt: skip
PLAN = {"monitoring": {"programs": [PINNED]}}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose apt has what the file ``offered`` says; ``installed``: what is there."""
    bin_ = tmp_path / "bin"
    program(bin_, "dpkg-query", f"cat {tmp_path}/installed 2>/dev/null")
    program(bin_, "apt-get", f'echo "$1 $APT_CONFIG" >>{tmp_path}/log; echo "$@" >>{tmp_path}/all')
    program(
        bin_,
        "apt-cache",
        f"V=$(cat {tmp_path}/offered); "
        'case $1 in policy) printf "g:\\n  Candidate: %s\\n" "$V";; '
        'madison) printf "g | %s | here\\n" "$V";; esac',
    )
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.delenv("APT_CONFIG", raising=False)
    return tmp_path


def has(machine: Path, version: str, *, offered: str = "12.4.2") -> None:
    (machine / "offered").write_text(offered)
    if version:
        (machine / "installed").write_text(f"installed {version}")


def log(machine: Path) -> list[str]:
    file = machine / "log"
    return [line.strip() for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("before", ["", "12.3.1"])
def test_a_missing_or_older_one_is_installed(machine: Path, before: str) -> None:
    has(machine, before)
    assert programs.install_programs(PLAN) == {"installed": ["grafana"]}
    assert log(machine) == ["update", "install"]
    # An older one than what is there is never installed.
    assert "--allow-downgrades" not in (machine / "all").read_text()


def test_a_version_that_no_source_has_is_refused_before_anything_is_installed(
    machine: Path,
) -> None:
    has(machine, "", offered="13.0.0")
    with pytest.raises(commands.HostError, match=r"have versions 13.0.0.*catalog/programs/gra"):
        programs.install_programs(PLAN)
    assert log(machine) == ["update"]


def test_a_newer_one_stays_as_its_database_is_newer(machine: Path) -> None:
    has(machine, "13.0.1")
    with pytest.raises(commands.HostError, match=r"grafana 13.0.1 is installed, which is newer"):
        programs.install_programs(PLAN)
    assert log(machine) == ["update"]


def test_a_bundle_is_the_only_source(machine: Path) -> None:
    has(machine, "")
    try:
        programs.install_programs({**PLAN, "apt_config": "/b.conf"})
        assert log(machine) == ["update /b.conf", "install /b.conf"]
    finally:
        os.environ.pop("APT_CONFIG", None)


@pytest.fixture
def signed(machine: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A plan whose program comes from a repository with a key; what is fetched is in ``keys``."""
    monkeypatch.setattr(install, "output", lambda *_: "")
    monkeypatch.setattr(install, "show", lambda *_: {})
    (machine / "keys").mkdir()

    def fetch_key(_: str, fingerprint: str, target: str, __: str) -> None:
        if fingerprint != "A" * 40:
            raise commands.HostError("holds another key")
        Path(target).write_text(fingerprint)

    monkeypatch.setattr(programs, "fetch_key", fetch_key)
    pinned = {
        **PINNED, "key_url": "https://apt.example.com/k", "key_fingerprint": "A" * 40,
        "keyring": str(machine / "keys/k.asc"),
    }  # fmt: skip
    plan = {"files": {str(machine / "g.sources"): "x"}, "units": [], "programs": [pinned]}
    has(machine, "12.4.2")
    return {"paths": {"state": str(machine / "state")}, "monitoring": plan}


def test_a_repository_is_added_once_its_key_is_there(machine: Path, signed: dict[str, Any]) -> None:
    (pinned,) = signed["monitoring"]["programs"]
    wrong = {**signed["monitoring"], "programs": [{**pinned, "key_fingerprint": "B" * 40}]}
    with pytest.raises(commands.HostError, match="holds another key"):
        install.write({**signed, "monitoring": wrong})
    # Otherwise apt would take no list of any repository until somebody repairs it.
    assert not (machine / "g.sources").exists()
    install.write(signed)
    assert (machine / "keys/k.asc").exists()


def test_a_bundle_needs_no_key(machine: Path, signed: dict[str, Any]) -> None:
    install.write({**signed, "apt_config": "/b.conf"})
    install.start(signed)
    assert not (machine / "keys/k.asc").exists()
    assert differs(signed) == list(drift.of_monitoring(signed["paths"])) == []


@pytest.mark.parametrize("harm", ["removed", "changed"])
def test_a_key_that_is_gone_is_fetched_again(
    machine: Path, signed: dict[str, Any], harm: str
) -> None:
    key = machine / "keys/k.asc"
    install.write(signed)
    install.start(signed)
    assert differs(signed) == []
    key.unlink() if harm == "removed" else key.write_text("other")
    assert differs(signed) == [str(key)]
    assert len(list(drift.of_monitoring(signed["paths"]))) == 1
    install.write(signed)
    install.start(signed)
    assert key.read_text() == "A" * 40
    assert differs(signed) == []


def differs(document: dict[str, Any]) -> list[str]:
    state = monitored.monitoring_state(document["monitoring"], document["paths"], [])
    found: list[str] = state["differs"]
    return found


def test_the_state_and_drift_tell_of_another_version(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "output", lambda *_: "")
    monkeypatch.setattr(install, "show", lambda *_: {})
    plan: dict[str, Any] = {"files": {}, "units": [], "programs": [PINNED]}
    document = {"paths": {"state": str(tmp_path / "state")}, "monitoring": plan}
    has(machine, "12.4.9")
    install.write(document)
    install.start(document)
    state = monitored.monitoring_state(plan, document["paths"], [])
    assert (state["differs"], state["programs"]) == ([], {})
    assert list(drift.of_monitoring(document["paths"])) == []
    has(machine, "12.3.1")
    state = monitored.monitoring_state(plan, document["paths"], [])
    assert state["differs"] == ["package grafana"]
    assert state["programs"] == {"grafana": {"installed": "12.3.1", "offered": ["12.4.2"]}}
    (row,) = drift.of_monitoring(document["paths"])
    assert (row["planned"], row["found"]) == ("grafana 12.4.*", "12.3.1 is installed")


@pytest.mark.parametrize(
    ("version", "pinned", "fits"),
    [("1:12.4.1", "12.4.*", True), ("12.40.1", "12.4.*", False), ("12.4.1", "12.4.1", True)],
)
def test_a_pin_is_read_as_apt_reads_it(version: str, pinned: str, fits: bool) -> None:
    assert pins.fits(version, pinned) is fits


def test_an_answer_without_a_login_is_no_closed_door(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = helper_module("checks.prometheus")
    plan = {"answers": {}, "targets": "", "closed": {"grafana-server.service": "http://x/s"}}

    def refused(_: str) -> bytes:
        raise checks.urllib.error.HTTPError("http://x/s", 401, "", None, None)

    monkeypatch.setattr(checks, "got", lambda _: b"[]")
    (row,) = checks.rows(plan)
    assert (row["ok"], row["detail"]) == (False, "http://x/s answers everybody")
    monkeypatch.setattr(checks, "got", refused)
    (row,) = checks.rows(plan)
    assert (row["ok"], row["check"]) == (True, "login")
