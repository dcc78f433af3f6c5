"""Stages: key files and generations (no service touched), activation, verification."""

from __future__ import annotations

from functools import partial

from pyinfra import host

from corral.plan.key_digest import DIGEST_KEY
from deploys import waves
from deploys.keys import proof
from deploys.target import Target
from operations import instance


def instances(target: Target) -> None:
    """Put keys and generations in place, and keep others off the ports."""
    helper = target.plan.paths.helper
    instance.keys(
        changed=target.changed_keys(), helper=helper, files=target.keys,
        seen=target.seen_keys(), digest_key=DIGEST_KEY, operator=target.operator,
        name="API key files",
    )  # fmt: skip
    instance.generations(
        missing=target.missing_instances(),
        helper=helper,
        operator=target.operator,
        name="Generations",
    )
    instance.ports(reserved=target.state.ports_reserved, plan=target.plan, name="Reserved ports")
    instance.watch(watched=target.state.watched, plan=target.plan, name="Watch")


def activate(target: Target) -> None:
    """Switch what does not serve its planned generation yet, wave by wave.

    Every wave is one operation: hosts that wait for a later one are idle meanwhile. An instance
    that left the inventory and holds a planned port goes with its host's own wave.
    """
    this, waiting = target.host, target.waiting_instances()
    leaving = target.orphans(in_the_way=True) if this.options.remove_orphans else []
    for number in host.loop(waves.numbers()):  # type: ignore[no-untyped-call]
        if waiting or number == 0:
            instance.activate(
                waiting=waiting,
                of=this,
                plan=target.plan,
                traffic=waves.traffic(),
                finish=partial(waves.finish, this),
                leaving=instance.Leaving(tuple(leaving), waves.gateway_hosts()),
                name=f"Activate wave {number + 1}",
                _if=partial(waves.is_turn, this, number) if waiting else None,
            )


def remove_orphans(target: Target) -> None:
    """Remove instances that left the inventory, with remove_orphans, unless a host failed."""
    if target.host.options.remove_orphans:
        names = tuple(target.orphans(in_the_way=False))
        instance.removed(
            leaving=instance.Leaving(names, waves.gateway_hosts()),
            of=target.host,
            helper=target.plan.paths.helper,
            name="Instances that left the inventory",
            _if=partial(waves.may_end, target.host) if names else None,
        )


def verify(target: Target) -> None:
    """Compare every instance with its plan."""
    done = partial(waves.is_done, target.host)
    document = proof(target.host, target.plan)
    instance.verify(
        plan=target.plan, of=target.host, document=document, name="Verify endpoints", _if=done
    )
