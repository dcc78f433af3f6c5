"""The `corral` command: pages for people, JSON for programs, one message for each error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

from corral.cli import cli, main
from corral.lock.lock_file import write_lock
from corral.plan.host import HostPlan
from tests.samples import EXAMPLES, ROOT, lock

pytestmark = pytest.mark.slow

SITE = """
chat = {"name": "chat", "profile": "tiny-chat", "port": 8001}
long = {"name": "long", "profile": "tiny-long", "port": 8002}
servers = [("node-1", {"instances": [chat, long]}), ("node-2", {"instances": [chat]})]
"""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Corral:
    """The command in a checkout."""

    root: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *words: str) -> Said:
        self.monkeypatch.chdir(self.root)
        self.monkeypatch.setattr(sys, "argv", ["corral", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = self.capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, shown.out, shown.err)


@pytest.fixture
def corral(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Corral:
    """In a copy of the checkout with one inventory of two hosts."""
    for folder in ("catalog", "templates"):
        shutil.copytree(EXAMPLES / folder, tmp_path / folder)
    for file in ("deploy.py", "corral.lock"):
        shutil.copy(EXAMPLES / file, tmp_path / file)
    (tmp_path / "inventories").mkdir()
    (tmp_path / "inventories" / "site.py").write_text(SITE)
    return Corral(tmp_path, capsys, monkeypatch)


def assert_one_message(said: Said, *words: str) -> None:
    assert said.code == 1
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.count("\n  Next: ") == 1
    assert all(word in said.err for word in words), said.err


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_plan_shows_a_person_what_a_host_will_get(corral: Corral) -> None:
    said = corral("plan", "node-1")
    assert (said.code, said.err) == (0, "")
    planned = HostPlan.model_validate_json(corral("plan", "node-1", "--json").out)
    for instance in planned.instances:
        assert instance.generation in said.out
        assert instance.endpoint.url in said.out
        assert all(word in said.out for word in instance.argv)
    assert planned.releases[0].key in said.out
    assert f"{planned.shards[0].size_bytes:,} bytes, sha256 {planned.shards[0].sha256}" in said.out


def test_plan_of_a_lab_host_is_json_that_reads_back(
    corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_home = Corral(EXAMPLES, corral.capsys, monkeypatch)
    said = at_home("plan", "lab-1", "--json", "-i", "inventories/lab.py")
    planned = HostPlan.model_validate_json(said.out)
    assert (said.code, said.err, planned.host) == (0, "", "lab-1")
    assert [i.name for i in planned.instances] == ["tiny-chat", "tiny-long"]
    assert len(planned.shards) == 1
    assert at_home("plan", "lab-1").code == 0


def test_plan_of_a_host_that_only_watches_shows_its_monitoring_alone(corral: Corral) -> None:
    watching = '("watch-1", {"monitoring": {"prometheus": {}, "grafana": {}}})'
    edit(corral.root / "inventories/site.py", "servers = [", f"servers = [{watching}, ")
    said = corral("plan", "watch-1")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[:3] == ["host watch-1", "", "monitoring"]
    assert "prometheus.service, grafana-server.service" in said.out
    assert "grafana 12.4.*, pinned in catalog/programs/grafana.toml" in said.out


def test_plan_of_an_unknown_host_tells_the_near_miss(corral: Corral) -> None:
    assert_one_message(corral("plan", "node1"), "node1", 'did you mean "node-1"')


def test_an_inventory_in_place_of_a_host_is_refused_with_where_it_belongs(corral: Corral) -> None:
    step = "name a host, and add -i inventories/site.py"
    for command in ("plan", "status"):
        said = corral(command, "inventories/site.py")
        assert_one_message(said, "inventories/site.py: is an inventory, not a host", step)


def test_plan_of_an_instance_says_that_a_host_is_wanted(corral: Corral) -> None:
    assert_one_message(corral("plan", "long"), "long")


def test_lock_check_passes_on_a_current_lock(corral: Corral) -> None:
    said = corral("lock", "--check")
    assert (said.code, said.err) == (0, "")
    assert "2 hosts" in said.out


def test_lock_check_fails_on_a_stale_lock_and_changes_nothing(corral: Corral) -> None:
    edit(corral.root / "catalog/engines/llama.cpp.toml", 'commit = "0c1e', 'commit = "1c1e')
    before = (corral.root / "corral.lock").read_bytes()
    assert_one_message(corral("lock", "--check"), "corral.lock", "stale", "corral lock")
    assert (corral.root / "corral.lock").read_bytes() == before


def test_lock_check_fails_on_a_lock_without_the_entry(corral: Corral) -> None:
    write_lock(corral.root / "corral.lock", lock())
    said = corral("lock", "--check")
    assert_one_message(said, "no entry for model tiny-glm-moe")
    assert "corral.lock: corral.lock" not in said.err


def test_tune_tells_a_mistake_of_its_host_once(corral: Corral) -> None:
    write_lock(corral.root / "corral.lock", lock())
    assert_one_message(corral("tune", "node-1/chat", "--list"), "node-1/chat: ", "no entry for")


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("inventories/site.py", '"tiny-chat"', '"tiny-cat"', ("node-1/chat", '"tiny-chat"')),
        ("inventories/site.py", "8002", "8001", ("node-1", "port 8001")),
        ("inventories/site.py", "servers =", "servers = 1 +", ("site.py", "TypeError")),
        ("catalog/profiles/tiny-chat.toml", "slots =", "slotz =", ("tiny-chat.toml", '"slots"')),
        ("catalog/models/tiny-glm-moe.toml", "[quants.F16]", "[quants", ("tiny-glm-moe.toml",)),
        ("corral.lock", "{", "<<<<<<< HEAD\n{", ("corral.lock", "damaged")),
        ("corral.lock", '"requested": "main"', '"requested": "v1"', ("stale", "corral lock")),
    ],
)
def test_a_mistake_is_one_message(
    corral: Corral, file: str, old: str, new: str, words: tuple[str, ...]
) -> None:
    edit(corral.root / file, old, new)
    assert_one_message(corral("plan", "node-1"), *words)


def test_a_missing_inventory_is_one_message(corral: Corral) -> None:
    assert_one_message(corral("plan", "node-1", "-i", "inventories/sight.py"), "sight.py")


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_acting_on_nothing_in_particular_is_refused(corral: Corral, verb: str) -> None:
    assert_one_message(corral(verb), "no host or instance named")
    assert_one_message(corral(verb, "-i", "inventories/site.py"), "no host or instance named")


def test_logs_of_a_name_that_fits_two_instances_asks_which(corral: Corral) -> None:
    assert_one_message(corral("logs", "chat"), "node-1", "node-2", "HOST/INSTANCE")


def test_outside_a_checkout_the_command_says_so(corral: Corral, tmp_path: Path) -> None:
    (tmp_path / "deploy.py").unlink()
    assert_one_message(corral("plan", "node-1"), "not inside a Corral checkout", "deploy.py")


def test_verify_of_a_host_that_cannot_be_reached_fails_each_instance(corral: Corral) -> None:
    hosts = '("node-1", {"instances": [chat, long]'
    edit(corral.root / "inventories/site.py", hosts, f'{hosts}, "ssh_hostname": "127.0.0.9"')
    edit(corral.root / "inventories/site.py", "servers", "_port = 9\nservers")
    edit(corral.root / "inventories/site.py", '"127.0.0.9"', '"127.0.0.9", "ssh_port": _port')
    said = corral("verify", "node-1", "--json")
    assert said.code == 1
    rows = json.loads(said.out)["checks"]["node-1"]
    assert [(row["instance"], row["ok"]) for row in rows] == [("chat", False), ("long", False)]


def test_the_command_itself_exits_one_with_the_message(corral: Corral) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from corral.cli import main; main()", "plan", "absent"],
        cwd=corral.root, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert_one_message(Said(done.returncode, done.stdout, done.stderr), "absent")


@pytest.mark.parametrize(
    "words", [["--help"], ["plan", "node-1"], ["plan", "node-1", "--json"], ["export", "--help"]]
)
def test_what_is_printed_to_a_full_disk_is_one_message(corral: Corral, words: list[str]) -> None:
    path = f"{ROOT}:{ROOT / 'files'}"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from corral.cli import main; main()", *words],
            cwd=corral.root, env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    said = "the output of this command: cannot be written: No space left on device\n  Next: free"
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def test_the_help_says_of_each_command_what_it_says_of_itself() -> None:
    context = click.Context(cli)
    listed = {one.value: one.help for one in cli.shell_complete(context, "")}
    loaded = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    said = {name: one.get_short_help_str(80) for name, one in loaded.items() if one}
    assert listed == said
    assert all(said.values())


def test_the_help_lists_a_command_that_another_package_makes_without_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import click\nprobe = click.Command('probe', help='Look at racks.')\n"
    (tmp_path / "racks_of_ours.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("probe", "racks_of_ours:probe", "corral.commands")
    monkeypatch.setattr("corral.cli.entry_points", lambda **_: [point])
    listed = {one.value: one.help for one in cli.shell_complete(click.Context(cli), "p")}
    assert listed["probe"] == "Look at racks."


def test_the_help_imports_no_command_and_no_planning() -> None:
    code = (
        "import sys; from corral.cli import cli; cli(['--help'], standalone_mode=False);"
        "sys.exit(str([one for one in sys.modules if one in ('pydantic', 'corral.cli.plan')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    assert "Operate" in done.stdout
