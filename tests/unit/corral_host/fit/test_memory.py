"""Memory available to an instance: on a GPU that it shares, and in main memory."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.samples import ROOT


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "files"))
    return importlib.import_module("corral_host.fit.memory")


def smi(free_mib: int | None, **held: int | None) -> dict[str, Any]:
    """Two GPUs; ``held`` says who holds memory of the first."""
    gpus = [{"index": n, "uuid": f"GPU-{n}", "memory_free_mib": free_mib} for n in (0, 1)]
    processes = [
        {"gpu": "GPU-0", "pid": 7, "program": name, "unit": unit(name), "used_mib": mib}
        for name, mib in held.items()
    ]
    return {"gpus": gpus, "processes": processes, "problem": ""}


def unit(name: str) -> str:
    return "" if name == "stranger" else f"corral-{name}.service"


def instance(name: str, *gpus: int | str, serves: bool = False, **host: int) -> dict[str, Any]:
    """An instance that needs 1000 MiB on each of its GPUs, and the given memory on the host."""
    one = {"weights_mib": 600, "kv_mib": 200, "compute_mib": 150, "runtime_mib": 50}
    need = {"gpus": [one] * len(gpus), "host": {**dict.fromkeys(one, 0), **host}}
    base = {"name": name, "unit": unit(name), "gpus": gpus, "serves": serves, "argv": ["server"]}
    return {**base, "need": need}


def there(room: Any, others: list[dict[str, Any]], free_mib: int, **held: int | None) -> int:
    found: int = room.gpu_room(0, instance("me", 0), others, smi(free_mib, **held))["there"]
    return found


def test_what_the_instance_holds_itself_is_there_for_it(room: Any) -> None:
    assert there(room, [], 100) == 100
    assert there(room, [], 100, me=900, stranger=400) == 1000


def test_one_that_serves_as_planned_takes_no_more(room: Any) -> None:
    serving = instance("other", 0, serves=True)
    assert there(room, [serving], 5000, other=600) == 5000


def test_one_that_serves_without_any_memory_of_the_gpu_still_takes_it(room: Any) -> None:
    assert there(room, [instance("other", 0, serves=True)], 5000) == 4000


def test_one_to_be_replaced_takes_what_it_needs_beyond_what_it_holds(room: Any) -> None:
    waiting = instance("other", 0)
    assert there(room, [waiting], 5000) == 4000
    assert there(room, [waiting], 5000, other=600) == 4600
    assert there(room, [waiting], 5000, other=1600) == 5000


def test_a_gpu_has_two_names_and_other_gpus_do_not_count(room: Any) -> None:
    assert there(room, [instance("other", "GPU-0")], 5000) == 4000
    assert there(room, [instance("other", 1)], 5000) == 5000
    assert there(room, [instance("other", 1, "GPU-0")], 5000) == 4000


def test_strangers_are_named(room: Any) -> None:
    found = room.gpu_room(0, instance("me", 0), [instance("other", 0)], smi(1, me=2, stranger=300))
    assert found["strangers"] == ["stranger (pid 7) 300 MiB"]


def test_memory_that_the_driver_does_not_tell_counts_as_none(room: Any) -> None:
    assert there(room, [], 100, me=None) == 100


def test_a_gpu_whose_free_memory_is_not_told_is_refused(room: Any) -> None:
    with pytest.raises(Exception, match="does not report the free memory of GPU 0"):
        room.gpu_room(0, instance("me", 0), [], smi(None))


def memory(room: Any, monkeypatch: pytest.MonkeyPatch, **held: int) -> None:
    """20000 MiB of main memory are available; servers hold the given memory."""
    monkeypatch.setattr(room.kernel, "memory", lambda: {"available_mib": 20000})
    monkeypatch.setattr(room, "held_by_unit", lambda name: held.get(name.split("-")[-1][:-8], 0))


def test_in_main_memory_mapped_weights_of_others_take_nothing(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(room, monkeypatch, me=300)
    other = instance("other", weights_mib=8000, kv_mib=500, runtime_mib=500)
    assert room.host_room(instance("me"), [other])["there"] == 20000 + 300 - 1000
    locked = {**other, "argv": ["server", "--load-mode", "mmap+mlock"]}
    assert room.host_room(instance("me"), [locked])["there"] == 20000 + 300 - 9000


def status(**kib: int) -> str:
    lines = [f"{name}:\t{value} kB" for name, value in {"VmLck": 0, **kib}.items()]
    return "\n".join(["Name:\tllama-server", *lines, "Threads:\t3"])


def test_a_server_holds_its_own_and_its_locked_pages(room: Any) -> None:
    mapped = {"VmRSS": 9 * 1024, "RssAnon": 2 * 1024, "RssFile": 7 * 1024}
    assert room.held_by_process(status(**mapped)) == 2
    assert room.held_by_process(status(**mapped, VmLck=6 * 1024)) == 8
    assert room.held_by_process(status(**mapped, VmLck=8 * 1024)) == 9
