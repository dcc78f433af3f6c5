"""Limits of a build on a host, so that the servers beside it keep serving."""

from __future__ import annotations

import pytest

from tests.unit.helper_hosts import memory
from tests.unit.helper_modules import helper_module

limits = helper_module("release.limits")
HostError = helper_module("system.commands").HostError


def active(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """The units that systemctl lists."""
    monkeypatch.setattr(limits, "output", lambda *_: "\n".join(lines))


@pytest.mark.parametrize(
    ("cores", "quota"), [(1, "75%"), (2, "150%"), (4, "300%"), (16, "1500%"), (128, "12700%")]
)
def test_a_core_stays_free_where_a_server_runs(
    monkeypatch: pytest.MonkeyPatch, cores: int, quota: str
) -> None:
    memory(monkeypatch, 64000, 32000)
    monkeypatch.setattr(limits, "cores", lambda: cores)
    active(monkeypatch, "corral-job-build-x.service loaded", "corral-air.service loaded")
    assert f"CPUQuota={quota}" in limits.build_properties()


@pytest.mark.parametrize("units", [(), ("corral-job-build-x.service loaded active running",)])
def test_a_host_that_serves_nothing_is_the_build_s(
    monkeypatch: pytest.MonkeyPatch, units: tuple[str, ...]
) -> None:
    memory(monkeypatch, 64000, 32000)
    active(monkeypatch, *units)
    assert "CPUQuota" not in " ".join(limits.build_properties())


@pytest.mark.parametrize(
    ("total", "available", "limit", "compilers"),
    [(64000, 32000, 25600, 12), (64000, 64000, 57600, 16), (8000, 4000, 2976, 1)],
)
def test_memory_for_the_servers_stays(
    monkeypatch: pytest.MonkeyPatch,
    total: int,
    available: int,
    limit: int,
    compilers: int,
) -> None:
    memory(monkeypatch, total, available)
    monkeypatch.setattr(limits, "cores", lambda: 16)
    active(monkeypatch)
    assert f"MemoryMax={limit}M" in limits.build_properties()
    assert limits.parallel() == compilers


def test_too_little_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    memory(monkeypatch, 8000, 3000)
    active(monkeypatch)
    with pytest.raises(HostError, match="3000 MiB of memory are available"):
        limits.build_properties()
