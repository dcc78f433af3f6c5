"""A small HTTP server that says what it was told; its release is a Python environment."""

from __future__ import annotations

from collections.abc import Mapping

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines.base import UnitNeeds
from corral.engines.flag_table import Flag, FlagTable, Problem, Settings
from corral.engines.plain import PlainEngine
from corral.engines.routes import CHAT_ROUTES, Routes
from corral.plan.gateway import HealthCheck

FLAGS = FlagTable(
    (
        Flag("--weights", ("model",), lambda s: s.model),
        Flag("--name", ("alias",), lambda s: s.alias),
        Flag("--listen", value=lambda s: s.endpoint.address, owner="the instance's address"),
        Flag("--port", value=lambda s: s.endpoint.port, owner="the instance's port"),
        Flag("--keys", value=lambda s: s.key_file, owner="the instance's key file"),
        Flag(
            "--context",
            ("context_tokens_per_slot",),
            lambda s: s.profile.context_tokens_per_slot,
            "ECHO_CONTEXT",
        ),
        Flag("--slots", ("slots",), lambda s: s.profile.slots),
    )
)


class Echo(PlainEngine):
    """The engine."""

    kind: EngineKind = "echo"
    flags = FLAGS
    program = "python"
    unit_needs = UnitNeeds(
        restart="always", stop_seconds=20, open_files=4096,
        system_calls=("sched_setscheduler",), address_families=("AF_NETLINK",),
    )  # fmt: skip
    routes = Routes(
        open=CHAT_ROUTES,
        closed={("GET", "/health"): "of one server", ("GET", "/metrics"): "tells its load"},
        health=HealthCheck(path="/health", answer='"status": "ok"'),
    )
    environment: Mapping[str, str] = {"PYTHONDONTWRITEBYTECODE": "1"}

    def problems(self, profile: Profile, *, gpus: int) -> list[Problem]:
        """It computes nothing, on no GPU."""
        found = FLAGS.extra_flag_problems(profile.extra_flags)
        return [*found, *([Problem("it has no use for GPUs", "give it none")] if gpus else [])]

    def argv(self, program: str, settings: Settings) -> tuple[str, ...]:
        """The interpreter of the environment, with the module."""
        return (
            program,
            "-I",
            "-m",
            "echo_engine",
            *FLAGS.arguments(settings),
            *settings.profile.extra_flags,
        )

    def keyed_routes(self, profile: Profile) -> tuple[str, ...]:
        """All but /health."""
        metrics = ("GET /metrics",) if profile.metrics else ()
        return ("GET /v1/models", "POST /v1/chat/completions", *metrics)


ENGINE = Echo()
