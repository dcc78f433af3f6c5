"""The hard day's scenarios and chores, in the order of play: every line of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain

from lab.chaos import acts, chores, faults
from lab.chaos.chores import MOVED, NEW_QUANT, OPEN, Chore
from lab.chaos.material import CERTIFICATES, GIBBERISH, OTHER_ENGINE
from lab.chaos.play import OLD, Fault, Scenario, Stage
from lab.chaos.wanted import Keys

NEW_ENGINE: Keys = {"engine": OTHER_ENGINE}
GIBBERISH_MODEL: Keys = {"model": GIBBERISH, "quant": "Q8_0"}
IN_PLACE: Keys = {**OLD, "activation": "in-place"}
SIDE_BY_SIDE: Keys = {**OLD, "activation": "side-by-side"}
# Text in the new generation's command line that the old one's does not have.
QUANT_MARK, ENGINE_MARK = "/F16/", f"/{OTHER_ENGINE}/"
CANARY = 1
MEMBERS = 3
GAP_SECONDS = 2.0

SWITCHES = {"in place": IN_PLACE, "side by side": SIDE_BY_SIDE}
PHASES = {
    "in place": ("checking", "draining", "stopping", "starting", "gate", "confirm"),
    "side by side": ("starting", "gate", "switching", "confirm", "draining", "stopping"),
}


def nothing(stage: Stage) -> AbstractContextManager[None]:  # noqa: ARG001 - a Fault
    """No fault: the change is good."""
    return nullcontext()


def at_start(fault: str, marker: str = QUANT_MARK, n: int = CANARY) -> Fault:
    """A fault of chaos.py in each start of the new generation on one server."""

    @contextmanager
    def make(stage: Stage) -> Iterator[None]:
        with faults.at_start(stage.fleet, n, fault, marker):
            yield

    return make


def good(*, has_gateway: bool) -> Iterator[Scenario]:
    """Good changes: how many requests fail?"""
    if has_gateway:
        yield Scenario(
            "good-gateway", "none, with a gateway", "in place", nothing, NEW_QUANT, "new",
            base=IN_PLACE, spared=True,
        )  # fmt: skip
    yield Scenario(
        "good-side-by-side", "none, without a gateway", "side by side", nothing, NEW_QUANT, "new",
        base=SIDE_BY_SIDE, direct=True, spared=True,
    )  # fmt: skip
    yield Scenario(
        "good-in-place", "none, without a gateway", "in place", nothing, NEW_QUANT, "new",
        base=IN_PLACE, direct=True, gap_beyond_load_seconds=GAP_SECONDS,
    )  # fmt: skip


def bad_servers() -> Iterator[Scenario]:
    """The new generation is bad, or its host has a fault."""
    table: tuple[tuple[str, str, Fault, Keys], ...] = (
        ("dies", "unit exits at once", at_start("dies"), NEW_QUANT),
        ("hangs", "healthy, completions hang", at_start("hangs"), NEW_QUANT),
        ("gibberish", "gibberish replies", nothing, GIBBERISH_MODEL),
        ("squatter", "port squatter", at_start("squatted"), NEW_QUANT),
        ("wrong-binary", "binary of another architecture",
         at_start("wrong_binary", ENGINE_MARK), NEW_ENGINE),
        ("missing-shard", "missing shard", at_start("missing_shard"), NEW_QUANT),
        ("stranger", "VRAM held by a stranger", acts.stranger_on_gpu(QUANT_MARK), NEW_QUANT),
    )  # fmt: skip
    for how, base in SWITCHES.items():
        for name, fault, make, change in table:
            yield Scenario(
                f"{name}-{_dashed(how)}", fault, how, make, change, "old", base=base,
                loads=change is not GIBBERISH_MODEL,
            )  # fmt: skip
        yield Scenario(
            f"late-{_dashed(how)}", "gate exactly at its limit", how, acts.late(QUANT_MARK),
            NEW_QUANT, "either", base=base,
        )  # fmt: skip
        yield Scenario(
            f"full-disk-{_dashed(how)}", "disk full", how, acts.full_disk(QUANT_MARK), NEW_QUANT,
            "either", base=base,
        )  # fmt: skip
        yield Scenario(
            f"clock-{_dashed(how)}", "clock moved by an hour", how, acts.moved_clock(QUANT_MARK),
            NEW_QUANT, "new", base=base,
        )  # fmt: skip
        yield Scenario(
            f"slow-{_dashed(how)}", "half the tokens/s", how, at_start("slow"), NEW_QUANT, "old",
            base={**base, "profile": "tiny-chaos-speed"}, loads=False,
        )  # fmt: skip


def interrupted() -> Iterator[Scenario]:
    """Kill, cut or reboot in each phase of a switch, and between the switches of hosts."""
    lines = (("staging", "staging", ""), ("soaking", "soaks for", "CorralRolloutStopped"))
    for name, line, alert in lines:
        yield Scenario(
            f"killed-{name}", "SIGKILL of the controller", name, acts.kill_controller_at(line),
            NEW_QUANT, "either", base=IN_PLACE, alert=alert,
        )  # fmt: skip
    table = (
        ("killed", "SIGKILL of the controller", acts.kill_controller),
        ("reboot", "reboot of the host", acts.reboot),
    )
    for how, base in SWITCHES.items():
        for phase in PHASES[how]:
            for name, fault, act in table:
                yield Scenario(
                    f"{name}-{_dashed(how)}-{phase}", fault, f"{how}, {phase}",
                    act(CANARY, phase), NEW_QUANT, "either", base=base,
                )  # fmt: skip
        yield Scenario(
            f"cut-{_dashed(how)}", "link cut for longer than the timer", f"{how}, gate",
            acts.cut_off(CANARY, "gate"), NEW_QUANT, "old", base=base,
        )  # fmt: skip
        yield Scenario(
            f"cable-{_dashed(how)}", "cable pulled for longer than the timer", f"{how}, gate",
            acts.pull_cable(CANARY, "gate"), NEW_QUANT, "old", base=base,
        )  # fmt: skip
        yield Scenario(
            f"power-{_dashed(how)}", "power loss right after the rename", f"{how}, starting",
            acts.power_loss(CANARY), NEW_QUANT, "either", base=base,
        )  # fmt: skip


def operators() -> Iterator[Scenario]:
    """Faults caused by people and by earlier runs."""
    yield Scenario(
        "two-rollouts", "two rollouts at once", "in place", nothing, NEW_QUANT, "new",
        base=IN_PLACE, run=acts.two_at_once,
    )  # fmt: skip
    yield Scenario(
        "stale-locks", "stale locks", "in place", acts.stale_locks, NEW_QUANT, "new", base=IN_PLACE
    )
    yield Scenario(
        "tampered", "revert to a tampered release", "revert", nothing, NEW_ENGINE, "new",
        base=IN_PLACE, run=acts.revert_to_tampered,
    )  # fmt: skip
    yield Scenario(
        "host-down", "a host down in wave 2", "gate of wave 1", acts.host_down(2, CANARY, "gate"),
        NEW_QUANT, "either", base=IN_PLACE,
    )  # fmt: skip


def all_scenarios(*, has_gateway: bool) -> list[Scenario]:
    """All scenarios, in the order of play."""
    return list(chain(good(has_gateway=has_gateway), bad_servers(), operators(), interrupted()))


def second_day() -> Iterator[Chore]:
    """Chores on a serving fleet behind its gateway."""
    decline, work = chores.declined, chores.there_and_back
    yield Chore("declined-port", "a port change, declined", "staged", decline(**MOVED))
    yield Chore("declined-quant", "another quant, declined", "staged", decline(**NEW_QUANT))
    yield Chore("declined-pool-key", "a key of the gateway at its servers, declined", "staged",
                chores.declined_pool_key)  # fmt: skip
    yield Chore("declined-instance-key", "a server's own key, declined", "staged",
                chores.declined_instance_key)  # fmt: skip
    for how, base in SWITCHES.items():
        yield Chore(f"port-{_dashed(how)}", "another port", how, work(**MOVED), base)
        yield Chore(f"address-{_dashed(how)}", "another address", how, work(**OPEN), base)
        yield Chore(f"pool-key-{_dashed(how)}", "another key of the gateway at its servers", how,
                    chores.pool_key, base)  # fmt: skip
        yield Chore(f"instance-keys-{_dashed(how)}", "other keys of the servers' own clients", how,
                    chores.instance_keys, base)  # fmt: skip
        yield Chore(f"alias-{_dashed(how)}", "an alias more, with a server of the first", how,
                    chores.alias_more, base)  # fmt: skip
        yield Chore(f"golden-{_dashed(how)}", "corrected golden, then reverts", how,
                    chores.corrected_golden, base)  # fmt: skip
    yield Chore("gate", "another gate alone", "nothing loaded", chores.gate)
    yield Chore("weights", "weights, and their revert", "gateway alone", chores.weights)
    yield Chore("client-keys", "a client's key more, then less", "gateway alone",
                chores.client_keys)  # fmt: skip
    yield Chore("certificate", "another certificate, clients over TLS", "gateway alone",
                chores.certificate, gateway={"tls_certificate": CERTIFICATES[0]})  # fmt: skip
    yield Chore("lost-store", "a clone without the store of keys", "refused", chores.lost_store)
    yield Chore("second-clone", "a second clone during a rollout", "refused, in place",
                chores.second_clone, IN_PLACE)  # fmt: skip
    yield Chore("restart-and-stop", "restart, stop and start of members", "drained",
                chores.restart_and_stop)  # fmt: skip


def all_chores(*, has_gateway: bool, servers: int) -> list[Chore]:
    """All chores; they need a gateway, and a member that keeps serving while two do not."""
    return list(second_day()) if has_gateway and servers == MEMBERS else []


def _dashed(text: str) -> str:
    return text.replace(" ", "-")
