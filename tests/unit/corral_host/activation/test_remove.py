"""Removal of instances and of all that Corral put on a host."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.unit.corral_host.weights.test_models_root import bound
from tests.unit.helper_modules import helper_module

removal = helper_module("activation.remove")
HostError = helper_module("system.commands").HostError


class Host:
    """A host with two instances; commands to systemd are only noted."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.log = root, list[str]()
        self.in_flight = 0
        names = {
            "state": "var/lib/corral", "engines": "opt/corral/engines", "keys": "etc/corral/keys",
            "gateway": "etc/corral/gateway", "units": "etc/systemd/system",
            "helper": "usr/local/lib/corral/corral_host.pyz",
            "compiler_cache": "var/cache/corral/ccache",
        }  # fmt: skip
        self.paths = {name: str(root / path) for name, path in names.items()}
        for name in ("chat", "old"):
            self._install(name)
        for file in ("opt/corral/engines/e/k/bin/x", "usr/local/lib/corral/corral_host.pyz"):
            (root / file).parent.mkdir(parents=True)
            (root / file).touch()
        for name in ("quiet", "output"):
            monkeypatch.setattr(removal, name, self.note)
        monkeypatch.setattr(removal, "end", lambda unit: self.note("end", unit))
        monkeypatch.setattr(removal, "drain", self.drained)
        monkeypatch.setattr(removal.shutil, "which", lambda _: None)
        monkeypatch.setattr(removal.watchdog, "quiet", self.note)
        monkeypatch.setattr(removal.watchdog, "output", self.note)
        for name in ("quiet", "output"):
            monkeypatch.setattr(removal.service, name, self.note)

    def _install(self, name: str) -> None:
        generation = self.folder(name) / "generations" / "abc"
        generation.mkdir(parents=True)
        plan = {"endpoint": {"port": 8001}, "name": name}
        (generation / "plan.json").write_text(json.dumps(plan))
        (self.folder(name) / "current").symlink_to("generations/abc")
        self.unit(name).parent.mkdir(parents=True, exist_ok=True)
        self.unit(name).write_text("[Unit]\nX-Corral-Generation=abc\n")
        for place in ("", ".staged/", ".before/"):
            key = self.key(f"{place}{name}")
            key.parent.mkdir(parents=True, exist_ok=True)
            key.touch()

    def folder(self, name: str) -> Path:
        return Path(self.paths["state"]) / "instances" / name

    def unit(self, name: str) -> Path:
        return Path(self.paths["units"]) / f"corral-{name}.service"

    def key(self, name: str) -> Path:
        return Path(self.paths["keys"]) / name

    def note(self, *words: str) -> str:
        self.log.append(" ".join(words))
        return ""

    def drained(self, server: dict[str, Any], seconds: int) -> int:
        self.log.append(f"drain {server['unit']} for {seconds} s")
        return self.in_flight

    def remove(self, name: str) -> dict[str, Any]:
        document = {"paths": self.paths, "instance": name, "by": "me", "drain_seconds": 60}
        found: dict[str, Any] = removal.remove(document)
        return found

    def remove_all(self, *, weights: bool) -> None:
        removal.remove_all({"paths": self.paths, "by": "me", "weights": weights})

    def files(self) -> list[str]:
        found = (path for path in self.root.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.root)) for path in found)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_an_instance_goes_with_unit_generations_and_keys(host: Host) -> None:
    host.in_flight = 2
    assert host.remove("old") == {"removed": "old", "requests_cut": 2}
    assert [path for path in host.files() if "old" in path] == []
    for path in (host.unit("chat"), host.key("chat"), host.folder("chat") / "current/plan.json"):
        assert path.exists()
    # It cannot come back at a boot, and is drained before it is stopped.
    order = ["disable --quiet corral-old.service", "drain corral-old.service for 60 s",
             "end corral-old.service", "clean --what=all corral-old.service",
             "systemctl daemon-reload"]  # fmt: skip
    assert [line for line in host.log if line in order] == order


def test_a_removal_that_was_killed_is_finished_by_the_next(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(removal, "remove_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            host.remove("old")
    assert not host.key("old").exists()
    host.remove("old")
    assert [path for path in host.files() if "old" in path] == []


def test_one_whose_folder_is_gone_is_known_by_its_unit(host: Host) -> None:
    removal.remove_folder(host.folder("old"))
    host.remove("old")
    assert not host.unit("old").exists()


@pytest.mark.parametrize("name", ["nothing", "../chat", ""])
def test_what_is_no_instance_of_this_host_is_refused(host: Host, name: str) -> None:
    before = host.files()
    with pytest.raises(HostError, match="no such instance"):
        host.remove(name)
    assert host.files() == before


def test_an_unfinished_activation_is_settled_first(host: Host) -> None:
    (host.folder("old") / "activating.json").touch()
    with pytest.raises(HostError, match="unfinished") as refused:
        host.remove("old")
    assert "systemctl start corral-guard-old.service" in refused.value.next_step
    assert host.log == []


def weights(host: Host, folder: str = "var/lib/corral/models") -> None:
    there = host.root / folder / "a/b/rev"
    there.mkdir(parents=True)
    for name in ("x.gguf", "x.gguf.receipt.json", "of-others.txt"):
        (there / name).touch()


def test_nothing_is_removed_from_a_host_that_still_has_instances(host: Host) -> None:
    before = host.files()
    with pytest.raises(HostError, match="chat, old: still on this host"):
        host.remove_all(weights=True)
    assert set(before) <= set(host.files())


def test_of_a_host_that_is_taken_out_only_weights_stay(host: Host) -> None:
    weights(host)
    for name in ("chat", "old"):
        host.remove(name)
    host.remove_all(weights=False)
    assert {Path(path).name for path in host.files()} == {
        "x.gguf", "x.gguf.receipt.json", "of-others.txt",
    }  # fmt: skip


def test_on_request_weights_go_and_files_of_others_stay(host: Host) -> None:
    host.paths["models_folder"] = str(host.root / "data/models")
    weights(host, "data/models")
    for name in ("chat", "old"):
        host.remove(name)
    host.remove_all(weights=True)
    assert host.files() == ["data/models/a/b/rev/of-others.txt"]
    assert not (host.root / "var/lib/corral").exists()


def test_a_running_job_is_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("chat", "old"):
        host.remove(name)
    monkeypatch.setattr(removal, "output", lambda *_: "corral-job-fetch.service loaded active\n")
    with pytest.raises(HostError, match="corral-job-fetch.service is running here"):
        host.remove_all(weights=False)
    assert (host.root / "opt/corral").exists()


def test_haproxy_loses_the_configuration_of_corral(host: Host) -> None:
    place = Path(host.paths["units"]) / "haproxy.service.d/corral.conf"
    place.parent.mkdir()
    place.touch()
    for name in ("chat", "old"):
        host.remove(name)
    host.remove_all(weights=False)
    assert not place.parent.exists()
    assert "systemctl disable --quiet --now haproxy.service" in host.log


def test_what_is_mounted_in_its_folders_stays(host: Host, tmp_path: Path) -> None:
    """A cache that other hosts share must not be emptied with this one."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "object").touch()
    for name in ("chat", "old"):
        host.remove(name)
    places = [Path(host.paths["compiler_cache"]), Path(host.paths["state"]) / "jobs"]
    with ExitStack() as mounted:
        for place in places:
            mounted.enter_context(bound(shared, place))
        (places[0].parent / "own").touch()
        answer = removal.remove_all({"paths": host.paths, "by": "me", "weights": True})
        assert (shared / "object").exists()
        assert sorted(answer["mounts"]) == sorted(map(str, places))
        assert not (places[0].parent / "own").exists()


def test_monitoring_goes_with_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch)
    install = helper_module("monitoring.install")
    for name in ("quiet", "output"):
        monkeypatch.setattr(install, name, host.note)
    timer = host.unit("x").with_name("corral_metrics.timer")
    plan = {"files": {str(timer): "[Timer]\n"}, "units": [timer.name]}
    install.start({"paths": host.paths, "monitoring": plan})
    install.write({"paths": host.paths, "monitoring": plan})
    for name in ("chat", "old"):
        host.remove(name)
    host.remove_all(weights=False)
    assert not timer.exists()
    assert any("corral_metrics.timer" in line and "disable" in line for line in host.log)
