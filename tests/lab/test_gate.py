"""The gate on a real server: every probe with its figure, a wrong reply, a slow server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.lab.test_activation import drop_in, serving
from tests.lab.untouched import said
from tests.lab.waiting import job_log
from tests.lab.workspace import Done, Workspace

HOST, NAME, UNIT = "lab-1", "tiny-long", "corral-tiny-long.service"
INSTANCE, PROFILE = f"{HOST}/{NAME}", "catalog/profiles/tiny-long.toml"
INVENTORY = ("-i", "inventories/lab.py")
SPARE = f"corral-{NAME}-spare.service"
BASELINE = f"/var/lib/corral/instances/{NAME}/baseline.json"
# A tenth of a processor's time, only for the new generation. A quota would be shorter, but not all
# machines give their lab hosts the control group for it.
SLOW = (
    'ExecStartPost=+/bin/sh -c \'! grep -q "ctx-size 2048" /etc/systemd/system/%n ||'
    " systemd-run --quiet --collect sh -c"
    ' "while kill -STOP $MAINPID; do sleep 0.09; kill -CONT $MAINPID; sleep 0.01; done"\''
)
# Half the speed still passes: the lab's processors have other work, too.
MEASURED = "epsilon = 0.5\nprompt_tokens = [256, 512]\ngenerated_tokens = 32"


@contextmanager
def changed(lab: Workspace, *, context: int, **texts: tuple[str, str]) -> Iterator[None]:
    """A profile that makes a new generation, with more changes of its text."""
    with ExitStack() as stack:
        sizes = ("context_tokens_per_slot = 8192", f"context_tokens_per_slot = {context}")
        for old, new in (sizes, *texts.values()):
            stack.enter_context(lab.edited(PROFILE, old, new))
        yield


def deployed(lab: Workspace, context: int, **texts: tuple[str, str]) -> Done:
    with changed(lab, context=context, speed=("off = true", MEASURED), **texts):
        return lab.deploy("--limit", HOST)


def kept(lab: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.on(HOST, f"cat {BASELINE}"))
    return found


@pytest.fixture(scope="module")
def measured(deployed_once: Workspace) -> Iterator[Workspace]:
    """A generation whose speed was measured and is the baseline."""
    done = deployed(
        deployed_once, 4096, soak=("metrics = false", "metrics = false\nsoak_seconds = 3")
    )
    assert done.returncode == 0, said(done)
    yield deployed_once
    deployed_once.corral("baseline", INSTANCE, "--forget", *INVENTORY)
    fixed = deployed_once.deploy()
    assert fixed.returncode == 0, said(fixed)


def test_a_real_server_passes_every_part_with_its_figure(measured: Workspace) -> None:
    log = job_log(measured, HOST, f"activate-{NAME}")
    for part in ("ready", "completion", "stream", "keys", "golden", "speed", "soak"):
        assert f"gate of {NAME}: {part} " in log, log
    assert "golden 1 of 1, limit 1 of 1 replies" in log
    assert "limit none yet: these become it" in log


def test_its_speed_is_the_baseline_from_then_on(measured: Workspace) -> None:
    found = kept(measured)
    assert (found["profile"], found["gpus"], found["lengths"]) == (NAME, [], [256, 512])
    assert found["generation"] == serving(measured).current[12:]
    assert all(len(samples) >= 3 for samples in found["samples"].values())
    shown = measured.corral("baseline", INSTANCE, *INVENTORY)
    assert shown.returncode == 0, said(shown)
    for measure in ("prompt at 256", "generation at 512"):
        assert measure in said(shown)


def test_a_wrong_reply_keeps_the_old_generation(measured: Workspace) -> None:
    before = serving(measured)
    done = deployed(measured, 2048, exact=("exact = 'QX", "exact = 'QY"))
    assert done.returncode != 0
    assert "golden 0 of 1, limit 1 of 1 replies" in said(done)
    assert f"Reverted: generation {before.current[12:]} serves again" in said(done)
    assert serving(measured).argv == before.argv


def test_a_server_at_a_tenth_of_its_speed_keeps_the_old_generation(measured: Workspace) -> None:
    before, baseline = serving(measured), kept(measured)
    # In place the unit is measured, side by side the spare.
    with drop_in(measured, UNIT, SLOW), drop_in(measured, SPARE, SLOW):
        done = deployed(measured, 2048)
    assert done.returncode != 0
    assert f"{NAME}: the gate failed. speed " in said(done)
    assert "too slow" in said(done)
    assert f"corral baseline HOST/{NAME} --forget" in said(done)
    assert serving(measured).current == before.current
    assert kept(measured) == baseline


def test_a_damaged_baseline_is_told_and_forgotten_by_hand(measured: Workspace) -> None:
    before = serving(measured)
    measured.on(HOST, f"cp {BASELINE} /root/kept && echo half > {BASELINE}")
    refused = deployed(measured, 2048)
    forgotten = measured.corral("baseline", INSTANCE, "--forget", *INVENTORY)
    gone = measured.try_on(HOST, f"test -e {BASELINE}").returncode
    measured.on(HOST, f"mv /root/kept {BASELINE}")
    assert refused.returncode != 0
    assert "baseline.json is damaged (JSONDecodeError" in said(refused)
    assert serving(measured).current == before.current
    assert f"{INSTANCE}: forgotten" in said(forgotten)
    assert gone == 1
