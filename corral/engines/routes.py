"""What a gateway may pass on to an engine's servers, and how it asks whether one is ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral.plan.gateway import HealthCheck, Route

# The least that a server of the OpenAI API offers its clients.
CHAT_ROUTES: tuple[Route, ...] = (("GET", "/v1/models"), ("POST", "/v1/chat/completions"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """All routes that an engine's server has, each decided.

    + open: for clients; each answers from its own request alone
    + closed: route -> why it is not for clients, which `corral verify` asks for
    + health: how a gateway asks a server, see HealthCheck
    + keyless: closed routes that answer without a key, that with the most to give away first
    + spare_connections: a server takes as many connections as it has slots, and these; more of them
      wait, also that of a gateway's check. None: without such a limit
    What stands in neither is closed, and nobody asks for it.
    """

    open: tuple[Route, ...]
    closed: Mapping[Route, str]
    health: HealthCheck
    keyless: tuple[Route, ...] = ()
    spare_connections: int | None = None

    def most_requests(self, slots: int) -> int | None:
        """Requests that a gateway may send at once, so that its check is answered; None: any."""
        return None if self.spare_connections is None else slots + self.spare_connections - 1
