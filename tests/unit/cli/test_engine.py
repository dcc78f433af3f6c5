"""`corral engine`, `corral logs --build` and what `corral plan` says of builds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from corral.cli import cli, instances
from corral.cli.views.engines import age
from corral.errors import CorralError
from corral.host.reading import read_answer
from corral.inventory.hosts import Host
from corral.store.engine_archives import Archive, ArchiveStore
from tests.samples import EXAMPLES
from tests.unit.fake_client import travelling
from tests.unit.store.test_engine_archives import BYTES, KEY, archive

LAB = "inventories/lab.py"
MANIFEST: dict[str, Any] = {
    "flags": ["--model"], "builder": "gpu-01", "built_at": "2026-11-01T00:00:00+00:00"
}  # fmt: skip
ROW = {
    "engine": "llama.cpp", "key": KEY, "folder": f"/opt/corral/engines/llama.cpp/{KEY}",
    "size_bytes": 64 * 1024**2, "installed_at": "2026-11-01T00:00:00+00:00",
    "users": ["chat (current)"], "manifest": MANIFEST,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples, with three hosts in the lab, also where this checkout has another one up."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr("lab.hosts.recorded", lambda _: [1, 2, 3])


@pytest.fixture
def store(tmp_path: Path) -> ArchiveStore:
    found = ArchiveStore(tmp_path / "store")
    for key in (KEY, KEY.replace("0c1e", "1c1e")):
        one: Archive = archive(key=key).model_copy(update={"manifest": MANIFEST})
        received = found.incoming("llama.cpp", key)
        received.write_bytes(BYTES)
        found.add(received, one)
    return found


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def test_releases_of_hosts_are_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answers(host: Any, command: str, _paths: str, shape: Any) -> Any:
        asked.append(f"{host.name} {command}")
        if host.name == "lab-2":
            raise CorralError("lab-2", "no route", "plug it in")
        return read_answer(shape, json.dumps([ROW, {**ROW, "users": [], "installed_at": None}]))

    # The package has the command under the same name.
    monkeypatch.setattr(
        import_module("corral.cli.engine"), "travelling_helper", travelling(answers)
    )
    done = run("engine", "list", "-i", LAB)
    assert done.exit_code == 1
    assert sorted(asked) == ["lab-1 releases", "lab-2 releases", "lab-3 releases"]
    assert "chat (current)" in done.output
    assert "nobody" in done.output
    assert "lab-2: no route" in done.output
    one = run("engine", "list", "lab-1", "-i", LAB, "--json")
    assert one.exit_code == 0
    # The manifest is for Corral itself.
    small = {key: value for key, value in ROW.items() if key != "manifest"}
    assert json.loads(one.output)["lab-1"][0] == small


def test_an_unknown_host_is_told_with_the_nearest() -> None:
    done = run("engine", "list", "lab-11", "-i", LAB)
    assert 'did you mean "lab-1"' in str(done.exception)
    assert "no host named" in str(run("engine", "list").exception)


def test_archives_are_listed_exported_and_imported(store: ArchiveStore, tmp_path: Path) -> None:
    listed = run("engine", "archives", "--store", str(store.folder))
    assert KEY in listed.output
    assert "gpu-01" in listed.output
    stick = tmp_path / "stick"
    out = run("engine", "export", "0c1e", "-o", str(stick), "--store", str(store.folder))
    assert out.exit_code == 0
    other = tmp_path / "other"
    taken = run("engine", "import", out.output.strip(), "--store", str(other))
    assert taken.exit_code == 0
    assert [a.key for a in ArchiveStore(other).all()] == [KEY]


@pytest.mark.parametrize(("key", "what"), [("9", "no such archive"), ("", "2 archives match")])
def test_a_key_must_name_one_archive(store: ArchiveStore, key: str, what: str) -> None:
    done = run("engine", "export", key, "-o", "x", "--store", str(store.folder))
    assert what in str(done.exception)


@pytest.mark.parametrize(
    ("back", "said"),
    [
        (timedelta(seconds=5), "5 s"),
        (timedelta(minutes=3), "3 min"),
        (timedelta(hours=30), "1 d"),
        (timedelta(hours=3), "3 h"),
    ],
)
def test_ages_are_in_their_largest_unit(back: timedelta, said: str) -> None:
    assert age((datetime.now(UTC) - back).isoformat()) == said
    assert age(None) == "?"


def test_the_log_of_a_build_is_followed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def record(_: Host, words: list[str]) -> int:
        ran.append(words)
        return 0

    monkeypatch.setattr(instances, "run_on", record)
    run("logs", "lab-1", "--build", "-i", LAB)
    run("logs", "lab-1", "--build", "-f", "-i", LAB)
    # Whatever was built there: no plan is needed to know its name.
    log = "/var/lib/corral/jobs/build-*/log"
    assert ran[0] == ["sh", "-c", f"exec tail --lines=100 {log}"]
    assert ran[1] == ["sh", "-c", f"exec tail --lines=100 --follow=name --retry {log}"]


def test_a_plan_refuses_flags_that_a_built_program_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corral.store.engine_archives.default_archives_folder", lambda: tmp_path)
    site = tmp_path / "site.py"
    site.write_text(
        'servers = [("a", {"instances": [{"name": "c", "profile": "tiny-chat", "port": 8001}]})]'
    )
    assert run("plan", "a", "-i", str(site)).exit_code == 0
    planned = json.loads(run("plan", "a", "-i", str(site), "--json").output)
    key = planned["releases"][0]["key"]
    received = ArchiveStore(tmp_path).incoming("llama.cpp", key)
    received.write_bytes(BYTES)
    ArchiveStore(tmp_path).add(received, archive(key=key))
    refused = str(run("plan", "a", "-i", str(site)).exception)
    assert "a/c: its engine" in refused
    assert "does not know --alias, --api-key-file" in refused


def test_a_plan_says_who_builds_and_who_receives() -> None:
    assert (
        "built on lab-1 (the first of 3 hosts with this key), shipped to lab-2, lab-3"
        in run("plan", "lab-2", "-i", LAB).output
    )
