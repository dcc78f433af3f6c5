"""Check that the program of a release supports the planned flags."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from corral.engines.flag_table import flags_of
from corral.errors import CorralError
from corral.plan.instance import InstancePlan


def unknown_flags(argv: Iterable[str], known: Collection[str]) -> list[str]:
    """Flags of a command line that are not in ``known``, the program's own --help; sorted.

    ``--flag.key`` is known where ``--flag`` is: some servers read it as a part of that flag's JSON.
    """
    unknown = flags_of(argv) - set(known)
    return sorted(flag for flag in unknown if flag.partition(".")[0] not in known)


def refuse_unknown_flags(instance: InstancePlan, known: Collection[str], *, where: str) -> None:
    """Raise CorralError for flags that the release of an instance would refuse at its start."""
    unknown = unknown_flags(instance.argv[1:], known)
    if unknown:
        listed = ", ".join(f"{flag}{_near(flag, known)}" for flag in unknown)
        what = f"its engine {instance.release} does not know {listed}"
        step = f"correct extra_flags of profile {instance.profile}, or choose another engine"
        raise CorralError(f"{where}/{instance.name}", what, step)


def _near(flag: str, known: Collection[str]) -> str:
    close = get_close_matches(flag, known, n=1, cutoff=0.8)
    return f' (did you mean "{close[0]}"?)' if close else ""
