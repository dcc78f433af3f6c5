"""Memory of a host by device: parts, sums, what stays free, what is unknown, advice."""

from __future__ import annotations

from typing import Any

import pytest

from corral.cli.views.memory import memory_lines
from corral.plan.host import HostPlan
from corral.plan.placement import DeviceNeed, InstanceNeed
from corral.planning.memory_use import DeviceMemory, HostMemory, memory_use
from tests.samples import CHAT, GPU, LONG, plan

GIB = 1024
GPU_NEED = DeviceNeed(weights_mib=10 * GIB, kv_mib=2 * GIB, compute_mib=GIB, runtime_mib=GIB)
HOST_NEED = DeviceNeed(weights_mib=20 * GIB, kv_mib=0, compute_mib=GIB, runtime_mib=0)


def planned(*needs: InstanceNeed, mapped: bool = True, **data: Any) -> HostPlan:
    """Two instances that share both GPUs and one file, with these needs."""
    found = plan(CHAT, LONG, gpus=GPU, backend="cpu", **data)
    instances = tuple(
        one.model_copy(update={"need": need, "gpus": (0, 1), "weights_mapped": mapped})
        for one, need in zip(found.instances, needs, strict=True)
    )
    return found.model_copy(update={"instances": instances})


NEED = InstanceNeed(gpus=(GPU_NEED, GPU_NEED), host=HOST_NEED)


def device(found: HostMemory, name: str) -> DeviceMemory:
    return next(one for one in found.devices if one.device == name)


def test_each_gpu_has_its_parts_their_sum_and_what_stays_free() -> None:
    found = memory_use(planned(NEED, NEED), 40 * GIB)
    assert [one.device for one in found.devices] == ["GPU 0", "GPU 1", "host"]
    first = device(found, "GPU 0")
    assert [part.instance for part in first.parts] == ["chat", "long"]
    assert [part.total_mib for part in first.parts] == [14 * GIB, 14 * GIB]
    assert first.sum_mib == 28 * GIB
    assert first.free_mib == 40 * GIB - 640 - 28 * GIB


def test_an_engine_that_takes_a_share_takes_all_of_it() -> None:
    share = GPU_NEED.model_copy(update={"reserved_mib": 30 * GIB})
    found = memory_use(planned(InstanceNeed(gpus=(share, share)), InstanceNeed()), 40 * GIB)
    assert device(found, "GPU 1").sum_mib == 30 * GIB


def test_a_gpu_without_instances_is_free_and_one_of_unknown_size_is_unknown() -> None:
    nothing = planned(InstanceNeed(host=HOST_NEED), InstanceNeed())
    assert device(memory_use(nothing, 40 * GIB), "GPU 0").free_mib == 40 * GIB - 640
    assert device(memory_use(nothing, None), "GPU 0").free_mib is None


def test_what_is_unknown_says_why_and_nothing_is_called_free_beside_it() -> None:
    found = memory_use(planned(NEED, InstanceNeed(unknown="no header")), 40 * GIB)
    assert [(one.instance, one.reason) for one in found.unknown] == [("long", "no header")]
    assert device(found, "GPU 0").free_mib is None
    assert "long: its need is unknown: no header" in "\n".join(memory_lines(found))


def test_a_mapped_file_counts_once_in_host_memory_and_a_read_one_twice() -> None:
    assert device(memory_use(planned(NEED, NEED), None), "host").sum_mib == 22 * GIB
    read = planned(NEED, NEED, mapped=False)
    assert device(memory_use(read, None), "host").sum_mib == 42 * GIB


@pytest.mark.parametrize(
    ("memory_gib", "advice"),
    [
        (None, '"memory_gib" of the host is not in the inventory'),
        (16, "memory_gib is 16: weights will be read from disk again and again"),
        (64, None),
    ],
)
def test_host_memory_is_advised(memory_gib: int | None, advice: str | None) -> None:
    found = memory_use(planned(NEED, NEED, memory_gib=memory_gib), 40 * GIB)
    first, *others = found.advice
    assert first == (
        "the servers need 2.0 GiB of host memory, 20.0 GiB more keep mapped weights in memory: "
        "32 GiB is enough"
    )
    assert [advice in one for one in others] == [True] if advice else not others


def test_a_person_reads_a_row_for_each_part_and_the_sum_of_each_device() -> None:
    text = "\n".join(memory_lines(memory_use(planned(NEED, NEED, memory_gib=64), 40 * GIB)))
    rows = [line.split() for line in text.splitlines()]
    assert ["GPU", "0", "chat", "10.0", "2.0", "1.0", "1.0", "14.0"] in rows
    assert ["GPU", "0", "all", "28.6", "40.0", "11.4"] in rows
