"""Changes of a server from outside its unit file are named: drop-ins, other files, variables."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.samples import CHAT, host, planner
from tests.unit.helper_modules import helper_module

changes = helper_module("instance.unit_changes")
check = helper_module("checks.unit_probes")
checks = helper_module("activation.preconditions")
instances = helper_module("instance.state")
unit_file = helper_module("instance.unit_file")
HostError = helper_module("system.commands").HostError
UNIT, SPARE = "corral-my-chat.service", "corral-my-chat-spare.service"
UNIT_TEXT = "[Unit]\nX-Corral-Generation=g\n"
PLANNED = {"GGML_NO_BACKTRACE": "1", "CUDA_CACHE_PATH": "%C/corral-my-chat"}
RUNS = {"GGML_NO_BACKTRACE": "1", "CUDA_CACHE_PATH": "/var/cache/corral-my-chat", "LANG": "C"}


class System:
    """Scripted answers of systemd, and its folders below one of the test."""

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
    monkeypatch.setattr(changes, "CONFIGURED", (str(made.etc), str(made.run)))
    monkeypatch.setattr(changes, "show", made.show)
    monkeypatch.setattr(changes, "output", made.output)
    monkeypatch.setattr(check, "show", made.show)
    return made


@pytest.fixture
def server() -> Iterator[Any]:
    """Start a process with the given variables; returns its pid."""
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
    assert changes.differences(system.instance, server(**RUNS)) == []
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
    assert changes.differences(system.instance, server(**RUNS))
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
    assert changes.differences(system.instance, server(**RUNS))
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
    assert changes.differences(system.instance, pid)
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


def test_an_image_may_have_variables_of_its_own(system: System, server: Any) -> None:
    inside = {**system.instance, "runtime": {"kind": "apptainer"}}
    own = {
        "CUDA_VERSION": "12.8.1",
        "LD_LIBRARY_PATH": "/usr/local/cuda/lib64:/.singularity.d/libs",
    }
    assert changes.strange_variables(inside, server(**RUNS, **own)) == []
    other = {**RUNS, **own, "GGML_NO_BACKTRACE": "0"}
    assert changes.strange_variables(inside, server(**other)) == ["GGML_NO_BACKTRACE"]


@pytest.mark.parametrize("name", ["APPTAINERENV_LD_PRELOAD", "SINGULARITY_BIND", "LD_PRELOAD"])
def test_a_variable_of_the_container_program_is_named(system: System, name: str) -> None:
    inside = {**system.instance, "runtime": {"kind": "apptainer"}}
    system.variables += f"{name}=secret\n"
    assert changes.manager_variables(inside) == [name]


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
        "ActiveEnterTimestamp": "", "UnitFileState": "enabled",
    }  # fmt: skip
    monkeypatch.setattr(instances, "show", lambda *_: running)
    monkeypatch.setattr(instances, "replaced", lambda *_: [])
    monkeypatch.setattr(instances, "generation_is_whole", lambda *_: True)
    planned = written(system, tmp_path)
    (tmp_path / "receipt.json").write_text('{"generation": "g"}')
    for found in ([], [changes.DROP_INS]):
        monkeypatch.setattr(changes, "differences", lambda *_, found=found: found)
        state = instances.instance_state(planned)
        assert (state["serves"], state["differs"]) == (not found, found)
    monkeypatch.setattr(changes, "differences", lambda *_: [])
    running["UnitFileState"] = "disabled"
    edit(planned["unit_path"])
    monkeypatch.setattr(instances, "changed_parts", lambda _: ["golden"])
    differs = instances.instance_state(planned)["differs"]
    assert differs == [instances.EDITED, instances.DISABLED, instances.GATE]
    (tmp_path / "receipt.json").write_text('{"generation": "h"}')
    differs = instances.instance_state(planned)["differs"]
    assert differs == [instances.OTHER, instances.EDITED, instances.DISABLED]


def written(system: System, root: Path) -> dict[str, Any]:
    """An instance whose files are as Corral wrote them, with a chat template."""
    staged = root / "generations" / "g"
    staged.mkdir(parents=True)
    texts = {staged / "unit": UNIT_TEXT, system.etc / UNIT: UNIT_TEXT, staged / "template": "{{}}"}
    for path, text in texts.items():
        path.write_text(text)
    digests = {str(p): hashlib.sha256(text.encode()).hexdigest() for p, text in texts.items()}
    more = {"folder": str(root), "key_path": str(root / "key"), "generation": "g"}
    return {**system.instance, **more, "file_sha256": digests}


def edit(path: str | Path) -> None:
    with Path(path).open("a") as file:
        file.write("LimitNOFILE=1\n")


@pytest.mark.parametrize("name", ["unit", "template"])
def test_a_staged_file_that_was_edited_is_seen_and_staged_again(
    name: str, system: System, tmp_path: Path
) -> None:
    planned = written(system, tmp_path)
    staged = tmp_path / "generations" / "g"
    assert instances.generation_is_whole(staged, planned)
    assert check.check_unit(planned) == ("unit", True, "generation g")
    edit(staged / name)
    assert not instances.generation_is_whole(staged, planned)
    reported = f"edited: {staged / name}; a deploy overwrites it"
    assert check.check_unit(planned) == ("unit", False, reported)


def test_an_edited_unit_file_is_seen_whatever_was_edited_beside_it(
    system: System, tmp_path: Path
) -> None:
    planned = written(system, tmp_path)
    for path in (system.etc / UNIT, tmp_path / "generations" / "g" / "unit"):
        edit(path)
        assert str(system.etc / UNIT) in check.check_unit(planned)[2]
    # A plan of an old version without digests is compared with the staged unit.
    del planned["file_sha256"]
    assert check.check_unit(planned)[1]
    edit(system.etc / UNIT)
    assert not check.check_unit(planned)[1]


def test_another_generation_or_none_is_not_what_is_planned(system: System, tmp_path: Path) -> None:
    planned = written(system, tmp_path)
    path = system.etc / UNIT
    path.write_text(UNIT_TEXT.replace("=g", "=h"))
    reported = f"{path} has generation h, planned g"
    assert check.check_unit(planned) == ("unit", False, reported)
    path.unlink()
    assert check.check_unit(planned) == ("unit", False, f"{path} has no generation, planned g")


@pytest.mark.parametrize(
    ("unit", "spare", "reported"),
    [
        ("enabled", "", "starts at boot"),
        ("disabled", "", f"{UNIT} is disabled"),
        ("enabled-runtime", "", f"{UNIT} is enabled-runtime"),
        ("masked", "disabled", f"{UNIT} is masked"),
        ("", "", f"{UNIT} is not there"),
        ("enabled", "enabled", f"{SPARE} is enabled"),
    ],
)
def test_what_a_boot_starts_is_told(
    unit: str, spare: str, reported: str, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {UNIT: unit, SPARE: spare}
    monkeypatch.setattr(unit_file, "show", lambda one, *_: {"UnitFileState": found[one]})
    ok = reported == "starts at boot"
    assert check.check_enabled(system.instance) == ("enabled", ok, reported)


def test_what_systemd_would_give_the_next_start_is_told(
    system: System, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = server(**RUNS)
    monkeypatch.setattr(check, "main_pid", lambda _: pid)
    assert check.check_environment(system.instance) == ("environment", True, "as planned")
    system.variables += "LD_PRELOAD=secret\n"
    reported = "systemd would give its next start LD_PRELOAD"
    assert check.check_environment(system.instance) == ("environment", False, reported)
    assert changes.differences(system.instance, pid) == [changes.VARIABLES]


@pytest.mark.parametrize(
    ("file", "line", "names"),
    [
        ("system.conf", "DefaultEnvironment=LANG=C LLAMA_ARG_TOOLS=all", ["LLAMA_ARG_TOOLS"]),
        ("system.conf.d/a.conf", 'ManagerEnvironment="LD_PRELOAD=/a b" A=1', ["LD_PRELOAD"]),
        ("system.conf", "#DefaultEnvironment=LD_PRELOAD=/a", []),
        ("system.conf.d/a.off", "DefaultEnvironment=LD_PRELOAD=/a", []),
    ],
)
def test_variables_of_systemd_s_own_files_are_told_before_they_are_read(
    file: str, line: str, names: list[str], system: System
) -> None:
    path = system.etc / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"[Manager]\n{line}\n")
    assert changes.manager_variables(system.instance) == names
