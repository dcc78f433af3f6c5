"""Do one chore from beginning to end: under load through the gateway, then check the rule."""

from __future__ import annotations

from dataclasses import dataclass

from corral.errors import CorralError
from lab.alerts.timeline import Seen
from lab.chaos import tally
from lab.chaos.chores import Chore
from lab.chaos.desk import Desk
from lab.chaos.play import Player


@dataclass(frozen=True)
class ChoreRow:
    """Result of a chore; ``wrong`` is empty if everything was as expected."""

    name: str
    change: str
    how: str
    commands: tuple[str, ...]
    asked: int
    failed: int
    failures: dict[str, int]
    longest_gap_seconds: float
    verified: tuple[str, ...]
    wrong: tuple[str, ...]
    alerts: tuple[Seen, ...]


def play(player: Player, chore: Chore) -> ChoreRow:
    """Do one chore; afterwards the fleet serves the chore's base again."""
    fleet = player.fleet
    player.learn(chore.base, loads=True)
    player.bring(chore.base, **chore.gateway)
    out = player.folder / f"{chore.name}.jsonl"
    out.unlink(missing_ok=True)
    watch = player.watch()
    desk = Desk(fleet, chore.base, chore.gateway)
    with fleet.load(out, tls="tls_certificate" in chore.gateway):
        try:
            chore.work(desk)
        except CorralError as error:
            desk.problems.append(f"not done to its end: {error}")
    summed = tally.summary(tally.read(out))
    failed = [f"{summed.failed} requests failed"] if summed.failed else []
    return ChoreRow(
        name=chore.name,
        change=chore.change,
        how=chore.how,
        commands=tuple(desk.commands),
        asked=summed.asked,
        failed=summed.failed,
        failures=summed.failures,
        longest_gap_seconds=summed.longest_gap_seconds,
        verified=tuple(desk.verified),
        wrong=(*desk.problems, *failed, *player.in_order(chore.base)),
        alerts=watch.seen(watch.began) if watch else (),
    )
