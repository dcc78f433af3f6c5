"""What changes a server from outside its unit file is named: drop-ins, other files, variables."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.samples import CHAT, host, planner
from tests.unit.helper_modules import helper_module

changes = helper_module("unit_changes")
check = helper_module("check")
checks = helper_module("checks")
instances = helper_module("instances")
HostError = helper_module("tools").HostError
UNIT, SPARE = "corral-my-chat.service", "corral-my-chat-spare.service"
PLANNED = {"GGML_NO_BACKTRACE": "1", "CUDA_CACHE_PATH": "%C/corral-my-chat"}
RUNS = {"GGML_NO_BACKTRACE": "1", "CUDA_CACHE_PATH": "/var/cache/corral-my-chat", "LANG": "C"}


class System:
    """What systemd would tell, and its folders below one of the test's own."""

    def __init__(self, root: Path) -> None:
        self.etc, self.run = root / "etc", root / "run"
        self.properties: dict[str, str] = {}
        self.variables = "LANG=C.UTF-8\nPATH=/usr/bin\n"
        self.etc.mkdir()

    @property
    def instance(self) -> dict[str, Any]:
        spare = {"unit": SPARE, "unit_path": str(self.etc / SPARE)}
        return {
            "name": "my-chat", "unit": UNIT, "unit_path": str(self.etc / UNIT),
            "environment": PLANNED, "activation": {"spare": spare},
        }  # fmt: skip

    def show(self, unit: str, *_: str) -> dict[str, str]:
        mine = {"FragmentPath": str(self.etc / UNIT), "DropInPaths": "", "NeedDaemonReload": "no"}
        return {**mine, **self.properties, "MainPID": "1"} if unit == UNIT else {}

    def output(self, *command: str) -> str:
        assert command == ("systemctl", "show-environment")
        return self.variables

    def drop_in(self, folder: Path, name: str) -> str:
        path = folder / name / "test.conf"
        path.parent.mkdir(parents=True)
        path.write_text("[Service]\nUser=root\n")
        return str(path)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    made = System(tmp_path)
    monkeypatch.setattr(changes, "SEARCHED", (str(made.etc), str(made.run)))
    monkeypatch.setattr(changes, "show", made.show)
    monkeypatch.setattr(changes, "output", made.output)
    monkeypatch.setattr(check, "show", made.show)
    return made


@pytest.fixture
def server() -> Iterator[Any]:
    """Starts a process with the given variables; gives its number."""
    started = []

    def start(**variables: str) -> int:
        process = subprocess.Popen(["/bin/sleep", "60"], env=variables)
        started.append(process)
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def refused(system: System) -> str:
    with pytest.raises(HostError) as fault:
        checks.refuse_changed_unit({"instance": system.instance})
    return str(fault.value)


def test_a_unit_that_nothing_changes_is_in_order(system: System, server: Any) -> None:
    checks.refuse_changed_unit({"instance": system.instance})
    assert changes.is_as_planned(system.instance, server(**RUNS))
    assert check.check_drop_ins(system.instance) == ("drop-ins", True, "none")


@pytest.mark.parametrize(
    "name", [f"{UNIT}.d", "corral-.service.d", "corral-my-.service.d", "service.d"]
)
@pytest.mark.parametrize("where", ["etc", "run"])
def test_a_drop_in_is_named_even_before_systemd_reads_it(
    system: System, server: Any, name: str, where: str
) -> None:
    path = system.drop_in(getattr(system, where), name)
    said = refused(system)
    assert f"my-chat: {UNIT} is changed by {path}. Next: " in said
    step = f"systemctl revert {UNIT}" if name == f"{UNIT}.d" else f"rm {path}"
    assert step in said
    assert not changes.is_as_planned(system.instance, server(**RUNS))
    row, ok, detail = check.check_drop_ins(system.instance)
    assert (row, ok) == ("drop-ins", False)
    assert path in detail


def test_a_drop_in_of_another_unit_is_none_of_its_business(system: System) -> None:
    for name in ("corral-other.service.d", "corral-my-chat-.service.d.off", "ssh.service.d"):
        system.drop_in(system.etc, name)
    assert changes.strange_files(UNIT, system.instance["unit_path"]) == []


def test_a_drop_in_for_the_spare_unit_is_named_as_well(system: System) -> None:
    path = system.drop_in(system.etc, "corral-my-chat-.service.d")
    assert f"{SPARE} is changed by {path}" in refused(system)


def test_what_systemd_alone_knows_of_is_named(system: System) -> None:
    system.properties = {"DropInPaths": "/gone/a.conf /usr/lib/systemd/system/service.d/10.conf"}
    assert "changed by /gone/a.conf. " in refused(system)
    system.properties = {"FragmentPath": f"/etc/systemd/system.control/{UNIT}"}
    assert f"changed by /etc/systemd/system.control/{UNIT}. " in refused(system)


def test_what_a_distribution_ships_is_allowed(system: System) -> None:
    system.properties = {"DropInPaths": "/usr/lib/systemd/system/service.d/10-timeout-abort.conf"}
    checks.refuse_changed_unit({"instance": system.instance})
    assert check.check_drop_ins(system.instance)[1]


def test_a_unit_that_systemd_has_not_read_is_not_in_order(system: System, server: Any) -> None:
    system.properties = {"NeedDaemonReload": "yes"}
    assert not changes.is_as_planned(system.instance, server(**RUNS))
    assert not check.check_drop_ins(system.instance)[1]


@pytest.mark.parametrize(
    "name", ["LLAMA_ARG_TOOLS", "GGML_CUDA_P2P", "LD_PRELOAD", "HF_TOKEN", "CUDA_VISIBLE_DEVICES"]
)
def test_a_variable_that_no_plan_sets_is_named_without_its_value(
    system: System, server: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pid = server(**RUNS, **{name: "secret"})
    monkeypatch.setattr(check, "main_pid", lambda _: pid)
    expected = "environment", False, f"not as planned: {name}"
    assert check.check_environment(system.instance) == expected
    assert not changes.is_as_planned(system.instance, pid)
    system.variables += f"{name}=secret\n"
    said = refused(system)
    assert f"systemctl unset-environment {name}`" in said
    assert "secret" not in said


def test_a_planned_variable_with_another_value_or_none_is_named(
    system: System, server: Any
) -> None:
    other = {**RUNS, "GGML_NO_BACKTRACE": "0"}
    assert changes.strange_variables(system.instance, server(**other)) == ["GGML_NO_BACKTRACE"]
    del other["GGML_NO_BACKTRACE"]
    assert changes.strange_variables(system.instance, server(**other)) == ["GGML_NO_BACKTRACE"]


def test_a_variable_that_the_unit_sets_itself_may_be_the_manager_s(system: System) -> None:
    system.variables += "GGML_NO_BACKTRACE=0\n"
    checks.refuse_changed_unit({"instance": system.instance})


def test_a_plan_without_variables_compares_none(system: System, server: Any) -> None:
    old = {name: value for name, value in system.instance.items() if name != "environment"}
    assert changes.strange_variables(old, server(GGML_X="1")) == []


def test_the_plan_carries_what_its_unit_sets() -> None:
    (instance,) = planner().plan_host(host(CHAT)).instances
    lines = [line for line in instance.unit_text.splitlines() if line.startswith("Environment=")]
    assert lines == [f"Environment={name}={value}" for name, value in instance.environment.items()]
    assert "GGML_NO_BACKTRACE" in instance.environment


def test_an_instance_serves_only_as_planned(
    system: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    running = {
        "ActiveState": "active", "SubState": "running", "MainPID": "1", "NRestarts": "0",
        "ActiveEnterTimestamp": "",
    }  # fmt: skip
    monkeypatch.setattr(instances, "show", lambda *_: running)
    monkeypatch.setattr(instances, "is_in_order", lambda *_: True)
    monkeypatch.setattr(instances, "generation_is_whole", lambda *_: True)
    files = {"folder": str(tmp_path), "key_path": str(tmp_path / "key"), "generation": "g"}
    for planned in (True, False):
        monkeypatch.setattr(changes, "is_as_planned", lambda *_, found=planned: found)
        assert instances.instance_state({**system.instance, **files})["serves"] is planned
