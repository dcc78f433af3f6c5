"""Health of changed instances: the helper's checks, completions included."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from corral.errors import CorralError
from corral.host.answers import CHECKS
from corral.host.checks import failures
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.planning.fleet import FleetPlan
from corral.remote.client import installed_helper
from corral.remote.run import on_all
from corral.remote.unreached import UnreachedError

_PAUSE_SECONDS = 5
# A link that is cut at the end of a soak may recover; after that, unknown counts as failed.
_GRACE_SECONDS = 30

Document = Callable[[Host, HostPlan], str]


def without_keys(_: Host, plan: HostPlan) -> str:
    """The input of checks without digests of keys."""
    return plan.to_helper()


class Health:
    """Health checks of the instances and gateways of a fleet.

    + document: returns the input of checks: a plan with digests of its keys
    """

    def __init__(self, fleet: FleetPlan, document: Document = without_keys) -> None:
        self._fleet = fleet
        self._document = document

    def problems(
        self, names: Sequence[str], *, gateways: Sequence[str] = (), for_seconds: float = 0
    ) -> list[str]:
        """One sentence for each failed check of these HOST/INSTANCE; empty if all are healthy.

        + gateways: hosts whose aliases are checked as well
        + for_seconds: repeat the checks for this time; the first problem ends it
        """
        if not names and not gateways:
            return []
        targets = self._fleet.select(names, gateways=gateways).pairs()
        known = {f"{host.name}/{i.name}" for host, plan in targets for i in plan.instances}
        if strangers := [name for name in names if name not in known]:
            return [f"{name}: not checked: it is not planned" for name in strangers]
        end = time.monotonic() + for_seconds
        while True:
            answers = on_all(lambda pair: self._ask(*pair), targets)
            broken = [text for texts, reached in answers if reached for text in texts]
            silent = [text for texts, reached in answers if not reached for text in texts]
            remaining = end - time.monotonic()
            if broken or remaining <= (-_GRACE_SECONDS if silent else 0):
                return broken + silent
            time.sleep(min(_PAUSE_SECONDS, max(remaining, 1)))

    def _ask(self, host: Host, plan: HostPlan) -> tuple[list[str], bool]:
        """Problems of a host, and whether it was reached."""
        try:
            document = self._document(host, plan)
            rows = installed_helper(host, plan.paths.helper).ask(["check"], CHECKS, document)
        except UnreachedError as error:
            return [f"{host.name}: {error.what}"], False
        except CorralError as error:
            return [f"{host.name}: {error.what}"], True
        return [f"{host.name}/{line}" for line in failures(plan, rows)], True
