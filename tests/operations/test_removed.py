"""Removal of instances that left the inventory, in a deploy that asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand

from corral.errors import CorralError
from corral.host.answers import RemovedInstance
from corral.inventory.hosts import Host
from operations import instance
from tests.operations.fakes import commands, prepared
from tests.samples import CHAT, host

HOST = host(CHAT)
LEAVING = instance.Leaving(("old", "older"))


class Done:
    """In place of hosts: what was removed, and whether that fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: CorralError | None = None) -> None:
        self.removed: list[str] = []
        self.fault = fault
        monkeypatch.setattr(instance, "remove", self.remove)
        monkeypatch.setattr(instance, "installed_helper", lambda *_: None)
        monkeypatch.setattr(instance, "forget_keys", self.forget)

    def remove(self, _: None, of: Host, name: str, fronts: Any, **__: int) -> RemovedInstance:
        if self.fault:
            raise self.fault
        assert fronts.force
        self.removed.append(f"{of.name}/{name}")
        return RemovedInstance(removed=name, requests_cut=0)

    def forget(self, of: Host, name: str) -> bool:
        self.removed.append(f"key of {of.name}/{name}")
        return True


@contextmanager
def command(leaving: instance.Leaving) -> Iterator[tuple[FunctionCommand, Any]]:
    with prepared() as fake:
        (found,) = commands(instance.removed, leaving, of=HOST, helper="/helper")
        assert isinstance(found, FunctionCommand)
        yield found, fake


def test_each_is_removed_with_its_key_here(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Done(monkeypatch)
    with command(LEAVING) as (found, fake):
        assert done.removed == []
        assert found.function(None, fake, *found.args)
    assert done.removed == [
        "lab-1/old", "key of lab-1/old", "lab-1/older", "key of lab-1/older",
    ]  # fmt: skip


def test_one_that_cannot_be_removed_fails_the_host_and_keeps_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = Done(monkeypatch, CorralError("lab-1", "unfinished", "settle it"))
    with command(LEAVING) as (found, fake):
        assert not found.function(None, fake, *found.args)
    assert done.removed == []


def test_without_any_nothing_is_done() -> None:
    with prepared():
        assert commands(instance.removed, instance.Leaving(()), of=HOST, helper="/helper") == []
