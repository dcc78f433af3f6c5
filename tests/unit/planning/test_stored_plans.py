"""Plans of instances as hosts keep them, of this version and of others."""

from __future__ import annotations

import json

from corral.plan.instance import INSTANCE_FILES
from corral.planning.stored_plans import named_plan, stored_plan
from tests.samples import CHAT, LONG, host, plan


def test_a_plan_that_a_host_keeps_is_what_it_was() -> None:
    (made,) = plan(CHAT).instances
    document = json.loads(made.model_dump_json())
    (found,) = stored_plan(host(CHAT), {"chat": document}).instances
    files = set(INSTANCE_FILES)
    assert found.model_dump(exclude=files) == made.model_dump(exclude=files)


def test_what_another_version_wrote_is_read_as_far_as_it_can_be() -> None:
    document = {"ready_timeout_seconds": 7, "novelty": 1, "gate": {"novelty": 1}, "slots": "x"}
    (found,) = stored_plan(host(CHAT), {"chat": document}).instances
    assert found.ready_timeout_seconds == 7
    assert (found.slots, found.gate.golden) == (0, ())


def test_no_host_names_units_of_others() -> None:
    document = {"name": "long", "unit": "ssh.service"}
    (found,) = stored_plan(host(CHAT), {"chat": document}).instances
    assert (found.name, found.unit) == ("chat", "corral-chat.service")


def test_names_are_enough_for_units_and_folders() -> None:
    made, found = plan(CHAT, LONG), named_plan(host(CHAT, LONG), ("chat", "long"))
    assert found.paths == made.paths
    for one, other in zip(made.instances, found.instances, strict=True):
        for key in ("name", "unit", "unit_path", "folder", "key_path"):
            assert getattr(one, key) == getattr(other, key)
