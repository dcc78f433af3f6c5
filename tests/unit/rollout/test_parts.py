"""Parts of a rollout: locks, journal, staging, plan of steps, health, page."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from corral.cli.run_rollout import holding
from corral.drift import unstaged, waiting
from corral.errors import CorralError
from corral.host.state import HostState
from corral.inventory.hosts import Host, Inventory
from corral.paths import default_rollouts_folder
from corral.plan.fleet import FleetPolicy
from corral.plan.host import HostPlan
from corral.planning.fleet import fleet_of, plan_fleet
from corral.planning.waves import waves
from corral.remote.unreached import UnreachedError
from corral.rollout import begin, health, locks, staging, steps
from corral.rollout.activation import NoGateway
from corral.rollout.begin import Fleet, Wanted
from corral.rollout.health import Health
from corral.rollout.journal import Journals, new_id
from corral.rollout.locks import HostLocks, fleet_lock
from corral.rollout.page import page
from corral.rollout.staging import Member
from corral.rollout.steps import changes
from tests.samples import CHAT, EXAMPLES, ROOT, bare, host, planner, settled
from tests.unit import gateway_samples
from tests.unit.rollout_samples import OLD, FakeHelper, generation, pair, report, rollout

pytestmark = pytest.mark.slow

HOLDS = (
    "import sys; print('{\"held\": true}', flush=True); "
    "first = sys.stdin.readline(); signs = len(sys.stdin.readlines()); "
    "open(sys.argv[1], 'a').write(f'{signs} signs after {first}')"
)
TAKEN = "import sys; sys.exit('a: ann is rolling out r2 on this host. Next: wait for it')"


def test_one_rollout_of_an_inventory_at_a_time_and_the_holder_is_named(tmp_path: Path) -> None:
    inventory, other = tmp_path / "prod.py", tmp_path / "lab.py"

    def held(path: Path, by: str) -> Any:
        return fleet_lock(tmp_path / "state", path, by=by, since="10:00")

    with held(inventory, "ann on desk"), held(other, "bob"):
        with pytest.raises(CorralError, match="since 10:00, by ann on desk") as caught:
            held(inventory, "bob").__enter__()
        assert "Next:" in str(caught.value)
    with held(inventory, "bob"):
        pass


def as_host(monkeypatch: pytest.MonkeyPatch, script: str, log: Path) -> list[list[str]]:
    asked: list[list[str]] = []

    def command(_: Host, words: list[str], **__: object) -> list[str]:
        asked.append(words)
        return [sys.executable, "-c", script, str(log)]

    monkeypatch.setattr("corral.remote.lease.ssh_command", command)
    return asked


def test_hosts_are_held_with_signs_of_life_until_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    asked = as_host(monkeypatch, HOLDS, log)
    monkeypatch.setattr(locks, "_HEARTBEAT_SECONDS", 0.05)
    with HostLocks([pair("a"), pair("b")], by="ann", rollout="r") as holds:
        holds.check()
        (lost, _) = holds._open.values()
        lost._process.kill()
        lost._process.wait()
        holds._ended.wait(0.2)
        holds.check()
        assert len(asked) == 3
    lines = log.read_text().splitlines()
    counts = [int(line.split()[0]) for line in lines]
    assert len(counts) == 2
    assert all('"rollout": "r"' in line for line in lines)
    assert max(counts) >= 2


def test_a_host_that_somebody_else_holds_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    as_host(monkeypatch, TAKEN, tmp_path)
    with pytest.raises(CorralError, match="^a: ann is rolling out r2") as caught:
        HostLocks([pair("a")], by="bob", rollout="r").__enter__()
    assert caught.value.next_step == "wait for it"


NOTHING = {
    "no helper": "import sys; print('no such file'); sys.exit(2)",
    "no python3": "import sys; print('not found'); sys.exit(127)",
    "no link": "import sys; print('no route'); sys.exit(255)",
}


@pytest.mark.parametrize("script", NOTHING.values(), ids=NOTHING)
def test_a_host_that_is_not_staged_yet_is_held_once_it_must_be(
    script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    as_host(monkeypatch, script, tmp_path)
    with HostLocks((), by="bob", rollout="r", also=[pair("a"), pair("a")]) as holds:
        with pytest.raises(CorralError, match="^a: "):
            holds.need([pair("a")])
        asked = as_host(monkeypatch, HOLDS, tmp_path / "log")
        holds.need([pair("a")])
        holds.check()
        assert len(asked) == 1


def test_of_those_that_are_held_where_it_can_be_nobody_else_may_hold_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    as_host(monkeypatch, TAKEN, tmp_path)
    with pytest.raises(CorralError, match="^a: ann is rolling out r2"):
        HostLocks((), by="bob", rollout="r", also=[pair("a")]).__enter__()


def test_a_rollout_holds_its_hosts_and_the_gateways_in_front_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    asked = as_host(monkeypatch, HOLDS, log)
    found = Fleet(fleet_of([]), (pair("a"), pair("b")), gateways=(pair("gw"), pair("a")))
    with holding(found, "r7"):
        assert len(asked) == 3
    assert log.read_text().count('"rollout": "r7"') == 3


def test_the_last_rollout_of_an_inventory_is_resumed_if_it_did_not_end(tmp_path: Path) -> None:
    journals, inventory = Journals(tmp_path), Path("/i/prod.py")
    with pytest.raises(CorralError, match="no rollout of it is known"):
        begin.unfinished(journals, inventory, soak_seconds=None)
    journals.save(rollout("a", id="20260101-1"))
    journals.save(rollout("a", id="20260102-1", inventory="/i/lab.py", exit_code=0))
    found = begin.unfinished(journals, inventory, soak_seconds=3)
    assert (found.id, found.soak_seconds) == ("20260101-1", 3)
    journals.save(rollout("a", id="20260103-1", exit_code=10))
    with pytest.raises(CorralError, match="20260103-1 ended"):
        begin.unfinished(journals, inventory, soak_seconds=None)


def test_a_journal_is_read_as_it_was_written_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    full = rollout("a", reports=(report("a"),), begun=("a/chat",))
    journals.save(full)
    assert journals.load("r") == full
    with pytest.raises(CorralError, match="no such rollout"):
        journals.load("x")
    (tmp_path / "r" / "rollout.json").write_text("{")
    with pytest.raises(CorralError, match="damaged"):
        journals.load("r")


def test_ids_sort_by_time_and_the_folder_is_where_state_belongs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert new_id() != new_id()
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert default_rollouts_folder() == Path("/s/corral/rollouts")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert default_rollouts_folder() == Path.home() / ".local/state/corral/rollouts"


def test_what_is_not_there_is_told_and_what_is_there_waits_for_its_switch() -> None:
    _, plan = pair("a")
    keys = {"chat": "k"}
    good = settled(plan, keys)
    assert unstaged(plan, good, keys) == []
    assert waiting(plan, good, keys) == ()
    assert unstaged(plan, good, {"chat": "other"}) == ["chat: its key file is not current"]
    assert waiting(plan, good, {"chat": "other"}) == plan.instances
    found = unstaged(plan, bare(plan), keys)
    assert [word for word in ("release", "verified", "staged") if word not in str(found)] == []
    rebuilt = good.model_copy(update={"releases": {}})
    assert waiting(plan, rebuilt, keys) == plan.instances


def member(name: str, problem: str = "", state: HostState | None = None) -> Member:
    found, plan = pair(name)
    return Member(found, plan, state or HostState(), problem, plan.instances)


@pytest.mark.parametrize(
    ("code", "problems", "without", "staged"),
    [
        (0, ("", ""), False, 2),
        (0, ("", "not staged"), False, None),
        (1, ("", "not staged"), True, 1),
        (1, ("", ""), False, None),
        (0, ("gone", "gone"), True, None),
    ],
)
def test_no_wave_starts_before_every_host_says_that_it_is_staged(
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    problems: tuple[str, str],
    without: bool,
    staged: int | None,
) -> None:
    members = [member("a", problems[0]), member("b", problems[1])]
    monkeypatch.setattr(begin, "run_pyinfra", lambda *_: code)
    monkeypatch.setattr(begin, "look", lambda *_: members)
    wanted = Wanted(Path("i.py"), without_failed=without)

    def stage() -> list[Member]:
        return begin.stage(wanted, Fleet(fleet_of([]), ()), Path("log"), print)

    if staged is None:
        with pytest.raises(CorralError, match="no service was touched"):
            stage()
    else:
        assert len(stage()) == staged


def test_pyinfra_is_run_for_staging_alone_and_its_words_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, commands = subprocess.Popen, []

    def popen(command: Sequence[str], **how: Any) -> subprocess.Popen[str]:
        commands.append(list(command))
        return real([sys.executable, "-c", "print('hello'); exit(3)"], **how)

    monkeypatch.setattr("subprocess.Popen", popen)
    monkeypatch.setattr(staging, "project_root", lambda: tmp_path)
    said: list[str] = []
    log = tmp_path / "log"
    assert staging.run_pyinfra(Path("i.py"), ("a", "b"), log, said.append) == 3
    assert (said, log.read_text()) == (["hello"], "hello\n")
    (command,) = commands
    text = " ".join(command)
    for words in ("-m pyinfra", "-y", "--data stage_only=true", "--limit a --limit b"):
        assert words in text
    assert "rollout=" not in text
    staging.run_pyinfra(Path("i.py"), (), log, said.append, "r1")
    assert "--data rollout=r1" in " ".join(commands[1])


def test_a_step_says_what_changes_and_takes_as_long_as_last_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, plan = pair("a")
    new = plan.instances[0].model_dump(mode="json")
    argv = [word if word != "--parallel" else "--slots" for word in new["argv"]]
    old = {**new, "quant": "F16", "argv": argv}
    helper = FakeHelper({"history": [[report("a")]], "generation": [{"plan": old}]})
    helper.answers["foresee"] = [{"how": "in place"}]
    monkeypatch.setattr("corral.remote.client.HelperClient.ask", helper.ask)
    state = settled(plan, {"chat": "k"})
    before = state.instances["chat"].model_copy(update={"installed_generation": OLD})
    state = state.model_copy(update={"instances": {"chat": before}})
    (step,) = steps.steps(
        [Member(found, plan, state, "", plan.instances)], waves(["a"], FleetPolicy(), {})
    )
    assert (step.from_generation, step.to_generation) == (OLD, generation("a"))
    assert step.changes[0] == "quant F16 -> Q8_0"
    assert "--parallel unset -> 2" in step.changes
    assert (step.how, step.estimated_seconds) == ("in place", 2)
    helper.answers["history"], helper.answers["generation"] = [[]], [CorralError("a", "no", "x")]
    (step,) = steps.steps(
        [Member(found, plan, state, "", plan.instances)], waves(["a"], FleetPolicy(), {})
    )
    assert step.changes == ("unknown: the old plan is not readable there",)
    assert step.estimated_seconds == plan.instances[0].ready_timeout_seconds


@pytest.mark.parametrize(
    ("answer", "behind", "how", "seconds"),
    [
        ({"how": "in place"}, False, "in place", 2),
        ({"how": "in place"}, True, "in place, drained at its gateway", 2),
        # What took 2 s was another way.
        ({"how": "side by side"}, False, "side by side", None),
        ({"how": "without a restart"}, False, "without a restart", None),
        (
            {"how": None, "obstacles": ["chat: no room. Next: make some", "more"]}, False,
            "side by side where both fit; refused now: chat: no room", None,
        ),
        (
            CorralError("a", "not reached", "x"), False,
            "side by side where both fit; the host gives no forecast: not reached", None,
        ),
    ],
)  # fmt: skip
def test_a_step_goes_as_its_host_decides(
    answer: Any, behind: bool, how: str, seconds: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind(NoGateway):
        def can_drain(self, *_: object) -> bool:
            return behind

    found, plan = pair("a")
    helper = FakeHelper({"history": [[report("a")]], "foresee": [answer]})
    monkeypatch.setattr("corral.remote.client.HelperClient.ask", helper.ask)
    state = settled(plan, {"chat": "k"})
    differs = ("its keys were replaced since it started",)
    now = state.instances["chat"].model_copy(update={"differs": differs, "serves": False})
    state = state.model_copy(update={"instances": {"chat": now}})
    member = Member(found, plan, state, "", plan.instances)
    (step,) = steps.steps([member], waves(["a"], FleetPolicy(), {}), Behind())
    assert step.changes == differs
    assert step.how == how
    assert step.estimated_seconds == (seconds or plan.instances[0].ready_timeout_seconds)
    assert helper.texts[-1]["drained"] is behind


def test_paths_of_weights_and_programs_are_no_change_of_their_own() -> None:
    old = {"argv": ["/a/server", "--model", "/x/a.gguf", "--jinja"], "release": "r1"}
    new = {"argv": ["/b/server", "--model", "/x/b.gguf", "--jinja"], "release": "r2"}
    assert changes(old, new) == ["engine r1 -> r2"]
    assert changes(old, old) == ["the unit's own settings"]


def auto(cpu_moe_layers: int, **changes: Any) -> dict[str, Any]:
    """The plan of an instance that is placed automatically, as a document."""
    return {
        "argv": ["/a/server", "--n-cpu-moe", str(cpu_moe_layers)],
        "settings": {"placement": "auto"},
        "placement": {"gpu_layers": "all", "cpu_moe_layers": cpu_moe_layers},
        "shards": ["a.gguf"],
        **changes,
    }


def test_another_automatic_placement_is_said_with_the_keys_that_keep_the_old_one() -> None:
    moved, flag = changes(auto(23), auto(39))
    assert moved == (
        'placement = "auto" beside other neighbours: all layers on GPUs, in host memory experts of '
        "the first 23 layers -> all layers on GPUs, in host memory experts of the first 39 layers; "
        "to keep the old placement, add \"overrides\": {'placement': 'gpu', 'cpu_moe_layers': 23} "
        "to the instance"
    )
    assert flag == "--n-cpu-moe 23 -> 39"


@pytest.mark.parametrize(
    "other",
    [
        {"shards": ["b.gguf"]},
        {"settings": {"placement": "gpu"}},
        {"settings": None},
        {"placement": {"rows": 3}},
    ],
)
def test_a_placement_that_was_asked_for_is_shown_as_flags_alone(other: dict[str, Any]) -> None:
    assert changes(auto(23), auto(39, **other)) == ["--n-cpu-moe 23 -> 39"]


ROW = {"instance": "chat", "check": "health", "detail": "503"}


@pytest.fixture
def helper(monkeypatch: pytest.MonkeyPatch) -> FakeHelper:
    made = FakeHelper({"check": [[{**ROW, "ok": True}]]})
    monkeypatch.setattr("corral.remote.client.HelperClient.ask", made.ask)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return made


def healthy(name: str = "a") -> Health:
    return Health(fleet_of([pair(name)]))


def test_health_is_asked_again_until_the_soak_ends(
    helper: FakeHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert healthy().problems(["a/chat"]) == []
    assert len(helper.asked) == 1
    slept = [0.0]
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("time.monotonic", lambda: sum(slept))
    assert healthy().problems(["a/chat"], for_seconds=12) == []
    assert slept == [0, 5, 5, 2]
    assert len(helper.asked) == 5


def test_health_compares_keys_with_the_store(helper: FakeHelper) -> None:
    asked = Health(fleet_of([pair("a")]), lambda host, _: json.dumps({"keys of": host.name}))
    assert asked.problems(["a/chat"]) == []
    assert helper.texts == [{"keys of": "a"}]


def at_a_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """An inventory with a gateway, as a rollout of all of it reads it; its keys are there."""
    hosts = tuple(gateway_samples.fleet(tmp_path))
    gateway_samples.make_keys(list(hosts))
    read = Inventory(path=Path("i.py"), hosts=hosts)
    monkeypatch.setattr(begin, "read_inventory", lambda _: read)
    monkeypatch.setattr(begin, "load_planner", lambda *_, **__: planner())
    return begin.fleet(Wanted(Path("i.py")), print)


def test_a_rollout_verifies_each_alias_of_its_gateways(
    helper: FakeHelper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = at_a_gateway(tmp_path, monkeypatch)
    asked = Health(found.checked, found.document)
    row = {"instance": "gateway small", "check": "members", "ok": True, "detail": ""}
    helper.answers["check"] = [[row]]
    assert asked.problems([], gateways=found.verified_gateways(())) == []
    (document,) = helper.texts
    assert [pool["alias"] for pool in document["gateway"]["pools"]] == ["small"]
    assert {"clients-small", "upstream-small"} <= document["keys"]["digests"].keys() | {
        name.replace("gateway-", "clients-") for name in document["keys"]["digests"]
    }
    helper.answers["check"] = [[{**row, "ok": False, "detail": "one/chat is down"}]]
    expected = ["gw/gateway small: members: one/chat is down"]
    assert asked.problems([], gateways=["gw"]) == expected
    helper.answers["check"] = [[]]
    assert asked.problems([], gateways=["gw"]) == ["gw/gateway small: not checked"]


def test_a_gateway_of_servers_that_were_left_out_is_not_as_planned_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = at_a_gateway(tmp_path, monkeypatch)
    assert found.verified_gateways({"shy"}) == ("gw",)
    assert found.verified_gateways({"two"}) == ()


def test_what_is_not_planned_is_not_well(helper: FakeHelper) -> None:
    assert healthy().problems(["b/chat"]) == ["b/chat: not checked: it is not planned"]
    assert helper.asked == []


def assert_stops_no_other(inventory: Path, mistake: str) -> None:
    """Whether a mistake of the host `bad` ends the rollouts that change it, and no other."""
    assert [h.name for h, _ in begin.fleet(Wanted(inventory, ("a",)), print).pairs] == ["a"]
    for only in ((), ("bad",), ("a", "bad")):
        with pytest.raises(CorralError, match=mistake):
            begin.fleet(Wanted(inventory, only), print)


def test_a_rollout_of_some_hosts_is_not_stopped_by_another(tmp_path: Path) -> None:
    inventory = tmp_path / "i.py"
    inventory.write_text(
        "chat = {'name': 'chat', 'profile': 'tiny-chat', 'port': 8001}\n"
        "servers = [('a', {'instances': [chat]}), ('bad', {'instances': [chat], 'gpu': 1})]\n"
    )
    assert_stops_no_other(inventory, 'unknown key "gpu"')


def test_a_rollout_of_some_hosts_is_not_stopped_by_a_profile_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("catalog", "templates"):
        shutil.copytree(EXAMPLES / folder, tmp_path / folder)
    for file in ("deploy.py", "corral.lock"):
        shutil.copy(EXAMPLES / file, tmp_path / file)
    profile = tmp_path / "catalog/profiles/tiny-long.toml"
    profile.write_text(profile.read_text().replace("slots =", "slotz ="))
    monkeypatch.chdir(tmp_path)
    inventory = tmp_path / "i.py"
    inventory.write_text(
        "servers = [(name, {'instances': [{'name': 'x', 'profile': profile, 'port': 8001}]})\n"
        "           for name, profile in (('a', 'tiny-chat'), ('bad', 'tiny-long'))]\n"
    )
    assert_stops_no_other(inventory, 'unknown key "slotz"')


def test_the_first_failed_check_ends_a_soak(helper: FakeHelper) -> None:
    helper.answers["check"] = [[{**ROW, "ok": True}], [{**ROW, "ok": False}]]
    assert healthy().problems(["a/chat"], for_seconds=60) == ["a/chat: health: 503"]
    helper.answers["check"] = [[]]
    assert healthy().problems(["a/chat"]) == ["a/chat: not checked"]
    helper.answers["check"] = [CorralError("a", "helper fails", "x")]
    assert healthy().problems(["a/chat"], for_seconds=60) == ["a: helper fails"]


def test_a_host_that_is_not_reached_gets_a_moment_and_then_counts_as_failed(
    helper: FakeHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = UnreachedError("a", "not reached", "wait")
    helper.answers["check"] = [cut, cut, [{**ROW, "ok": True}]]
    assert healthy().problems(["a/chat"]) == []
    monkeypatch.setattr(health, "_GRACE_SECONDS", 0.02)
    helper.answers["check"] = [cut]
    assert healthy().problems(["a/chat"]) == ["a: not reached"]


def test_the_page_needs_nothing_else_and_escapes_what_servers_say() -> None:
    failed = report("b", "reverted", reason="<script>x</script>", log="a & b", gate=[
        {"part": "ready", "ok": False, "figure": "9 s", "limit": "5 s", "detail": ""}])  # fmt: skip
    text = page(
        rollout("a", "b", reports=(report("a"), failed), begun=("a/chat", "b/chat"), exit_code=10),
        ROOT / "templates",
    )
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "reverted cleanly" in text
    assert not [word for word in ("http://", "https://", "src=") if word in text]
    for word in ("quant Q8_0 -&gt; F16", "FAILED", "9 s", "a &amp; b"):
        assert word in text


def test_a_host_of_the_limit_that_is_not_there_is_refused(tmp_path: Path) -> None:
    inventory = tmp_path / "i.py"
    inventory.write_text("servers = [('gpu-01', {'instances': []})]\n")
    with pytest.raises(CorralError, match='did you mean "gpu-01"'):
        begin.fleet(Wanted(inventory, ("gpu-1",)), print)
    with pytest.raises(CorralError, match="has an instance"):
        begin.fleet(Wanted(inventory), print)


def test_waves_are_of_the_hosts_that_change(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [host(CHAT, name=name, soak_seconds=7) for name in ("a", "b", "c")]
    pairs: list[tuple[Host, HostPlan]] = [(h, planner().plan_host(h)) for h in hosts]
    staged = [Member(h, p, HostState(), "", p.instances if h.name != "a" else ()) for h, p in pairs]
    monkeypatch.setattr(begin, "steps", lambda *_: ())
    whole = plan_fleet(hosts, planner())
    found = Fleet(whole, tuple(pairs))
    made = begin.plan(Wanted(Path("i.py")), found, staged, "r")
    assert [wave.hosts for wave in made.waves] == [("b",), ("c",)]
    assert made.soak_seconds == 7
