"""Preflight: every finding alone, all of them at once, and the arithmetic of disks."""

from __future__ import annotations

from typing import Any

import pytest

from corral.drift import fetch_bytes
from corral.findings import Finding
from corral.host.state import HostState
from corral.plan.host import HostPlan
from corral.plan.placement import ResolvedPlacement
from corral.preflight.checks import RESERVE_BYTES, preflight
from tests.samples import CHAT, GIB, GPU, LONG, NOW_SECONDS, bare, plan, settled


def findings(planned: HostPlan, state: HostState) -> list[str]:
    found = preflight(planned, state, now_seconds=NOW_SECONDS)
    assert all(finding.next_step for finding in found)
    return [finding.what for finding in found]


def with_state(**changes: Any) -> list[str]:
    planned = plan(CHAT)
    return findings(planned, bare(planned, **changes))


def test_nothing_stands_against_a_fresh_supported_host() -> None:
    assert with_state() == []


@pytest.mark.parametrize(
    ("os_id", "os_version"),
    [("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")],
)
def test_these_systems_are_supported(os_id: str, os_version: str) -> None:
    planned = plan(CHAT).model_copy(update={"platform": f"{os_id}-{os_version}"})
    assert findings(planned, bare(planned, os_id=os_id, os_version=os_version)) == []


def test_a_host_that_is_not_what_the_inventory_says_is_a_finding() -> None:
    (found,) = preflight(plan(CHAT), bare(plan(CHAT), os_version="13"), now_seconds=NOW_SECONDS)
    assert found.what == "the host is debian-13, but the inventory has platform = debian-12"
    assert found.next_step == 'set "platform": "debian-13" in the data of the host'


ALONE: list[tuple[dict[str, Any], str]] = [
    ({"os_version": "11"}, "debian 11 is not supported"),
    ({"os_id": "fedora"}, "fedora 12 is not supported"),
    ({"architecture": "aarch64"}, "architecture aarch64 is not supported"),
    ({"cpu_flags": ("avx", "bmi2", "f16c")}, "the processor lacks avx2, fma"),
    ({"systemd": False}, "systemd is not running"),
    ({"missing_commands": ("systemd-run",)}, "systemd-run is missing"),
    ({"time_seconds": NOW_SECONDS + 121}, "the clock differs from the controller's by +121 s"),
    ({"time_seconds": NOW_SECONDS - 3600}, "the clock differs from the controller's by -3600 s"),
    ({"engine_config_files": ("/etc/llama.cpp/config.ini",)}, "/etc/llama.cpp/config.ini exists"),
    (
        {"listeners": {8001: {"pid": 77, "program": "nginx", "unit": "nginx.service"}}},
        "chat: port 8001 is taken by nginx.service",
    ),
    (
        {"listeners": {8001: {"pid": 77, "program": "nc", "unit": ""}}},
        "chat: port 8001 is taken by nc (pid 77)",
    ),
]


@pytest.mark.parametrize(("changes", "said"), ALONE, ids=[said for _, said in ALONE])
def test_one_thing_wrong_is_the_only_finding(changes: dict[str, Any], said: str) -> None:
    (what,) = with_state(**changes)
    assert said in what


def test_all_findings_come_at_once() -> None:
    tiny = {"device": 1, "free_bytes": 0}
    planned = plan(CHAT, gpus=GPU)
    state = bare(
        planned,
        os_id="fedora",
        cpu_flags=(),
        systemd=False,
        missing_commands=("apt-get", "systemctl"),
        time_seconds=0,
        filesystems={"engines": tiny, "state": tiny, "models": tiny},
        listeners={8001: {"pid": 1, "program": "x", "unit": ""}},
        engine_config_files=("/etc/llama.cpp/config.ini",),
    )
    assert len(findings(planned, state)) == 10


def test_a_clock_within_two_minutes_is_fine() -> None:
    assert with_state(time_seconds=NOW_SECONDS - 120) == []


def test_our_own_unit_may_hold_the_port() -> None:
    ours = {8001: {"pid": 9, "program": "llama-server", "unit": "corral-chat.service"}}
    assert with_state(listeners=ours) == []


def test_another_instance_of_ours_on_the_port_is_a_stranger() -> None:
    planned = plan(CHAT, LONG)
    holder = {"pid": 9, "program": "llama-server", "unit": "corral-chat.service"}
    (what,) = findings(planned, bare(planned, listeners={8002: holder}))
    assert "long: port 8002 is taken by corral-chat.service" in what


def test_a_host_without_python_gets_that_as_its_only_finding() -> None:
    state = HostState(missing_commands=("python3",))
    assert findings(plan(CHAT), state) == ["python3 is missing"]


def test_a_host_that_could_not_be_read_is_never_fine() -> None:
    assert findings(plan(CHAT), HostState())


def needs(planned: HostPlan) -> tuple[int, int]:
    """Bytes for the engines' folder and for the state's, on a bare host."""
    weights = sum(shard.size_bytes for shard in planned.shards)
    scratch = sum(release.scratch_bytes for release in planned.releases)
    assert {release.installed_bytes for release in planned.releases} == {512 * 1024**2}
    return 512 * 1024**2 * len(planned.releases), weights + scratch


def on_disks(
    engines: tuple[int, int],
    state: tuple[int, int],
    models: tuple[int, int] | None = None,
    **changes: Any,
) -> list[str]:
    """Findings with (device, free bytes) for each folder."""
    planned = plan(CHAT)
    names = ("device", "free_bytes")
    disks = {
        "engines": dict(zip(names, engines, strict=True)),
        "state": dict(zip(names, state, strict=True)),
        "models": dict(zip(names, models or state, strict=True)),
    }
    return findings(planned, bare(planned, filesystems=disks, **changes))


def test_one_file_system_must_hold_everything_and_the_reserve() -> None:
    engines, state = needs(plan(CHAT))
    enough = engines + state + RESERVE_BYTES
    assert on_disks((1, enough), (1, enough)) == []
    (what,) = on_disks((1, enough - 1), (1, enough - 1))
    assert "/opt/corral/engines and /var/lib/corral" in what
    assert f"{enough / GIB:.1f} GiB needed" in what


def test_two_file_systems_are_counted_apart() -> None:
    engines, state = (need + RESERVE_BYTES for need in needs(plan(CHAT)))
    assert on_disks((1, engines), (2, state)) == []
    (what,) = on_disks((1, engines - 1), (2, state))
    assert what.startswith("/opt/corral/engines:")
    (what,) = on_disks((1, engines), (2, state - 1))
    assert what.startswith("/var/lib/corral:")
    assert len(on_disks((1, 0), (2, 0))) == 2


def test_weights_on_a_disk_of_their_own_are_counted_there() -> None:
    planned = plan(CHAT)
    weights = sum(shard.size_bytes for shard in planned.shards)
    engines, both = needs(planned)
    rest = (1, engines + both - weights + RESERVE_BYTES)
    assert on_disks(rest, rest, (2, weights + RESERVE_BYTES)) == []
    (what,) = on_disks(rest, rest, (2, weights + RESERVE_BYTES - 1))
    assert what.startswith("/var/lib/corral/models:")
    short = (1, rest[1] - 1)
    (what,) = on_disks(short, short, (2, weights + RESERVE_BYTES))
    assert what.startswith("/opt/corral/engines and /var/lib/corral:")


def test_what_is_left_of_another_download_makes_room() -> None:
    engines, state = (need + RESERVE_BYTES for need in needs(plan(CHAT)))
    left: dict[str, Any] = {"models_root": {"marked": True, "unwanted_bytes": GIB}}
    assert on_disks((1, engines), (2, state - GIB), **left) == []
    assert len(on_disks((1, engines), (2, state - GIB - 1), **left)) == 1
    assert len(on_disks((1, engines - GIB), (2, state), **left)) == 1


@pytest.mark.parametrize(
    ("small", "place"),
    [
        (("models",), "/var/lib/corral/models"),
        (("engines",), "/opt/corral/engines"),
        (("state",), "/var/lib/corral"),
        (("engines", "models"), "/var/lib/corral/models"),
        (("engines", "state", "models"), "/var/lib/corral"),
    ],
)
def test_a_small_disk_is_told_with_where_a_larger_one_goes(
    small: tuple[str, ...], place: str
) -> None:
    planned = plan(CHAT)
    wide, full = {"device": 1, "free_bytes": 2**50}, {"device": 2, "free_bytes": 0}
    disks = {name: full if name in small else wide for name in ("engines", "state", "models")}
    (found,) = preflight(planned, bare(planned, filesystems=disks), now_seconds=NOW_SECONDS)
    assert found.next_step.endswith(f"mount a larger disk at {place}")


def test_a_models_root_that_is_gone_is_the_only_finding() -> None:
    planned = plan(CHAT)
    gone = {"problem": "its disk is gone", "next_step": "mount it"}
    small = {"device": 1, "free_bytes": sum(needs(planned)[:1]) + RESERVE_BYTES}
    scratch = sum(release.scratch_bytes for release in planned.releases)
    small["free_bytes"] += scratch
    disks = dict.fromkeys(("engines", "state", "models"), small)
    state = bare(planned, filesystems=disks, models_root=gone)
    (found,) = preflight(planned, state, now_seconds=NOW_SECONDS)
    assert (found.what, found.next_step) == ("its disk is gone", "mount it (on the host)")
    without = planned.model_copy(update={"shards": (), "instances": ()})
    assert preflight(without, state, now_seconds=NOW_SECONDS) == []


def test_what_has_arrived_is_not_counted_again() -> None:
    planned = plan(CHAT)
    (shard,) = planned.shards
    engines, state = needs(planned)
    short = (1, engines + state + RESERVE_BYTES - GIB)
    arrived = {shard.path: {"proved": False, "staged_bytes": GIB}}
    assert on_disks(short, short)
    assert on_disks(short, short, shards=arrived) == []


def test_a_host_that_has_everything_needs_no_space() -> None:
    planned = plan(CHAT)
    have: dict[str, Any] = {
        "releases": {release.key: True for release in planned.releases},
        "shards": {s.path: {"proved": True, "staged_bytes": 0} for s in planned.shards},
    }
    assert on_disks((1, 0), (1, 0), **have) == []


def test_a_shard_of_two_instances_is_counted_once() -> None:
    assert needs(plan(CHAT, LONG)) == needs(plan(CHAT))


def test_the_same_bytes_under_two_names_are_counted_once() -> None:
    planned = plan(CHAT)
    (shard,) = planned.shards
    twin = shard.model_copy(update={"path": f"{shard.path}.twin"})
    twice = planned.model_copy(update={"shards": (shard, twin)})
    assert fetch_bytes(twice, bare(twice)) == fetch_bytes(planned, bare(planned)) > 0


def test_a_neighbour_that_takes_room_of_an_automatic_placement_is_told_before_it_happens() -> None:
    """From what the host keeps of the installed generation: a deploy asks no more of it."""
    (instance,) = plan(CHAT).instances
    assert instance.settings
    changes = {
        "settings": instance.settings.model_copy(update={"placement": "auto"}),
        "placement": ResolvedPlacement(gpu_layers="all", cpu_moe_layers=39),
    }
    planned = plan(CHAT).model_copy(update={"instances": (instance.model_copy(update=changes),)})
    new = planned.instances[0].model_dump(mode="json")
    old = {**new, "placement": {"gpu_layers": "all", "cpu_moe_layers": 23}}
    here = settled(planned, {"chat": "k"})

    def found_with(replaced: dict[str, Any]) -> list[Finding]:
        chat = here.instances["chat"].model_copy(update={"replaced": replaced})
        state = here.model_copy(update={"instances": {"chat": chat}})
        return preflight(planned, state, now_seconds=NOW_SECONDS)

    (found,) = found_with({key: old[key] for key in ("settings", "shards", "placement")})
    assert not found.stops
    assert found.what.startswith('chat: placement = "auto" beside other neighbours')
    assert found.what.endswith("experts of the first 39 layers")
    assert "'cpu_moe_layers': 23" in found.next_step
    assert found_with({}) == []


def test_an_instance_that_left_the_inventory_is_told_and_stops_nothing() -> None:
    planned = plan(CHAT)
    old = {"old": {"runs": True, "at_boot": True}}
    state = bare(planned, unplanned=old)
    (found,) = preflight(planned, state, now_seconds=NOW_SECONDS)
    assert not found.stops
    assert found.what == (
        "old is on this host and not in the inventory: it runs, and starts at boot"
    )
    assert "corral remove lab-1/old" in found.next_step


def test_a_port_that_it_holds_names_the_command_that_frees_it() -> None:
    planned = plan(CHAT)
    holder = {"pid": 7, "program": "llama-server", "unit": "corral-old.service"}
    old = {"old": {"runs": True, "at_boot": True}}
    state = bare(planned, unplanned=old, listeners={8001: holder})
    found = preflight(planned, state, now_seconds=NOW_SECONDS)
    (port,) = (one for one in found if one.stops)
    assert "port 8001 is taken by corral-old.service" in port.what
    assert port.next_step.startswith("`corral remove lab-1/old`")


def test_weights_that_are_on_the_host_already_need_no_space_and_no_token() -> None:
    planned = plan(CHAT)
    gated = planned.model_copy(
        update={"shards": tuple(s.model_copy(update={"gated": True}) for s in planned.shards)}
    )
    small = {name: {"device": 1, "free_bytes": 3 * GIB} for name in ("engines", "state", "models")}
    built = {release.key: True for release in gated.releases}
    found = {}
    for here in (True, False):
        shards = {s.path: {"proved": False, "staged_bytes": 0, "here": here} for s in gated.shards}
        state = bare(gated, filesystems=small, shards=shards, releases=built)
        found[here] = [one.what for one in preflight(gated, state, now_seconds=NOW_SECONDS)]
    assert found[True] == []
    assert len(found[False]) == 2


def test_a_disk_that_is_too_small_names_what_pruning_would_free() -> None:
    planned = plan(CHAT)
    small = {name: {"device": 1, "free_bytes": 2 * GIB} for name in ("engines", "state", "models")}
    root = {"marked": True, "prunable_bytes": 90 * GIB}
    state = bare(planned, filesystems=small, models_root=root)
    (full,) = preflight(planned, state, now_seconds=NOW_SECONDS)
    assert full.next_step.startswith("`corral weights prune lab-1` frees 90.0 GiB; or free space")
    # A deploy that prunes by itself has that space.
    assert preflight(planned, state, now_seconds=NOW_SECONDS, prunes=True) == []
