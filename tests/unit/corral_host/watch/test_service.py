"""The service that watches servers: made where a plan needs it, and removed where none does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.samples import CHAT, GPU, host, planner
from tests.unit.helper_modules import helper_module

service = helper_module("watch.service")


def plan(tmp_path: Path, *, gpus: bool = False, **chat: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"gpus": GPU} if gpus else {}
    made = planner(**chat).plan_host(host(CHAT, **data)).model_dump(mode="json")
    folders = {"keys": f"{tmp_path}/etc/keys", "units": f"{tmp_path}/units"}
    folders["sockets"] = f"{tmp_path}/run"
    (tmp_path / "units").mkdir(exist_ok=True)
    return {**made, "paths": {**made["paths"], **folders}}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those of systemd, which does what they say."""
    done: list[str] = []
    monkeypatch.setattr(service, "output", lambda *words: done.append(" ".join(words[1:])))
    monkeypatch.setattr(service, "quiet", lambda *words: done.append(" ".join(words)))

    def runs() -> bool:
        return "restart watched-by-corral.service" in done

    def shown(*_: str) -> dict[str, str]:
        return {"ActiveState": "active" if runs() else "inactive"}

    monkeypatch.setattr(service, "show", shown)
    monkeypatch.setattr(service, "unit_file_state", lambda _: "enabled" if runs() else "")
    return done


def test_a_host_without_gpus_and_watchdogs_has_no_such_service(
    tmp_path: Path, commands: list[str]
) -> None:
    assert service.is_watched(plan(tmp_path))
    assert not commands


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("changes", [{"gpus": True}, {"watchdog": {"failures": 2}}])
def test_it_is_made_once_and_removed_when_nothing_needs_it(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    wanted = plan(tmp_path, **changes)
    assert not service.is_watched(wanted)
    assert service.install(wanted) == {"watched": ["chat"]}
    assert service.is_watched(wanted)
    settings = json.loads((tmp_path / "etc/watch.json").read_text())
    assert settings["instances"]["chat"]["folder"] == "/var/lib/corral/instances/chat"
    found = service.records(wanted["paths"]) / "chat.json"
    found.parent.mkdir(parents=True)
    found.write_text("{}")
    assert service.is_watched(plan(tmp_path)) is False
    assert service.install(plan(tmp_path)) == {"watched": []}
    assert not found.exists()
    assert not list(tmp_path.rglob("*.service"))
    assert not list(tmp_path.rglob("watch.json"))
    assert service.is_watched(plan(tmp_path))


@pytest.mark.usefixtures("commands")
def test_a_changed_watchdog_is_a_change_of_the_service_and_restarts_no_server(
    tmp_path: Path,
) -> None:
    one, other = (plan(tmp_path, watchdog={"failures": n}) for n in (2, 3))
    service.install(one)
    assert not service.is_watched(other)
    assert one["instances"][0]["generation"] == other["instances"][0]["generation"]


def test_a_service_that_ended_or_was_edited_is_no_watch(
    tmp_path: Path, commands: list[str]
) -> None:
    wanted = plan(tmp_path, gpus=True)
    service.install(wanted)
    unit = tmp_path / "units" / service.UNIT
    text = unit.read_text()
    unit.write_text(text + "# edited\n")
    assert not service.is_watched(wanted)
    unit.write_text(text)
    assert service.is_watched(wanted)
    commands.clear()
    assert not service.is_watched(wanted)


@pytest.mark.usefixtures("commands")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    wanted = plan(tmp_path, gpus=True)
    service.install(wanted)
    unit = tmp_path / "units" / service.UNIT
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
