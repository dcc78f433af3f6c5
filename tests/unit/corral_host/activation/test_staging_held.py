"""While a rollout holds a host, nobody else stages anything that it would activate."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.host.state import RolloutHere
from corral.preflight.checks import preflight
from tests.samples import CHAT, NOW_SECONDS, bare
from tests.samples import plan as plan_of
from tests.unit.helper_modules import helper_module

holding, staging, gateway_change = map(
    helper_module, ("system.locks", "activation.staging", "gateway.change")
)
HostError = helper_module("system.commands").HostError
OURS, THEIRS = "first-0123456789-abcdefghij\n", "second-0123456789-abcdefghij\n"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[str]:
    """The folder with the locks of a host that Anna's rollout r1 holds."""
    with holding.held(holding.rollout_lock(tmp_path), "anna", "rolling out r1", rollout="r1"):
        yield str(tmp_path)


def put_key(folder: str, rollout: str | None) -> None:
    unit = f"{folder}/corral-chat.service"
    place = {
        "key_path": f"{folder}/keys/chat",
        "unit_path": unit,
        "asker": {"state": folder, "rollout": rollout},
    }
    staging.write_key(place, OURS)


def put_generation(folder: str, rollout: str | None) -> None:
    asker = {"state": folder, "rollout": rollout}
    staging.stage(
        {"folder": f"{folder}/instances/chat", "generation": "g", "chat_template": None,
         "unit_text": "[Unit]\n", "asker": asker}
    )  # fmt: skip


def gateway(folder: str, rollout: str | None) -> dict[str, Any]:
    asker = {"state": folder, "rollout": rollout}
    document = {"folder": f"{folder}/gateway", "units": folder, "generation": "g", "files": {}}
    return {**document, "asker": asker}


def put_gateway(folder: str, rollout: str | None) -> None:
    gateway_change.stage(gateway(folder, rollout))


def switch_gateway(folder: str, rollout: str | None) -> None:
    gateway_change.install(gateway(folder, rollout))


def put_gateway_back(folder: str, rollout: str | None) -> None:
    gateway_change.revert_change(gateway(folder, rollout))


OF_GATEWAYS = [put_gateway, switch_gateway, put_gateway_back]


@pytest.mark.parametrize("rollout", [None, "r2"])
@pytest.mark.parametrize("put", [put_key, put_generation, *OF_GATEWAYS])
def test_others_put_nothing_there_and_are_told_who_works(
    put: Any, rollout: str | None, held: str
) -> None:
    reported = rf"anna is rolling out r1 on this host since 2.* \(pid {os.getpid()}\). Next: wait"
    with pytest.raises(HostError, match=reported):
        put(held, rollout)
    assert [path.name for path in Path(held).iterdir()] == ["locks"]


@pytest.mark.parametrize("put", [put_key, put_generation])
def test_the_rollout_itself_does(put: Any, held: str) -> None:
    put(held, "r1")


@pytest.mark.parametrize("put", [put_key, put_generation])
def test_a_host_that_nobody_holds_takes_it_from_everybody(put: Any, tmp_path: Path) -> None:
    put(str(tmp_path), None)


def test_who_asks_is_no_part_of_what_is_kept(tmp_path: Path) -> None:
    put_generation(str(tmp_path), None)
    plan = json.loads((tmp_path / "instances/chat/generations/g/plan.json").read_text())
    assert "asker" not in plan


def test_a_state_tells_who_holds_the_host(held: str, tmp_path: Path) -> None:
    found = holding.rollout_here(held)
    assert (found["by"], found["rollout"]) == ("anna", "r1")
    assert holding.rollout_here(tmp_path / "other") is None


@pytest.mark.parametrize(
    ("own", "found", "stops"),
    [
        (None, None, False), ("r1", None, False), ("r1", "r1", False), (None, "r1", True),
        ("r2", "r1", True), (None, "", True),
    ],
)  # fmt: skip
def test_preflight_stops_who_would_stage_beside_a_rollout(
    own: str | None, found: str | None, stops: bool
) -> None:
    planned = plan_of(CHAT)
    here = None if found is None else RolloutHere(by="anna", since="10:00", rollout=found)
    state = bare(planned, rollout=here and here.model_dump())
    reported = preflight(planned, state, now_seconds=NOW_SECONDS, rollout=own)
    assert [one.what for one in reported if one.stops] == (
        [f"anna is rolling out {found or 'something'} on this host since 10:00"] if stops else []
    )


@pytest.mark.parametrize(
    ("there", "was", "written"),
    [(None, None, True), (THEIRS, THEIRS, True), (OURS, None, True), (THEIRS, None, False),
     (THEIRS, OURS, False)],
)  # fmt: skip
def test_keys_that_somebody_put_there_a_moment_ago_are_not_overwritten(
    there: str | None, was: str | None, written: bool, tmp_path: Path
) -> None:
    """``was``: what the controller saw when it looked."""
    path, unit = tmp_path / "keys" / "chat", str(tmp_path / "corral-chat.service")
    if there:
        staging.write_key({"key_path": str(path), "unit_path": unit}, there)
    seen = None
    if was:
        staging.write_key({"key_path": str(tmp_path / "seen/x"), "unit_path": unit}, was)
        seen = staging.private_digest(tmp_path / "seen/x", "k")
    document = {"key_path": str(path), "unit_path": unit, "was": seen, "digest_key": "k"}
    if written:
        staging.put_key({**document, "keys": OURS})
        assert path.read_text() == OURS
    else:
        with pytest.raises(HostError, match="somebody else put keys there"):
            staging.put_key({**document, "keys": OURS})
        assert path.read_text() == there
