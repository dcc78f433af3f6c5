"""Cost of engine builds: cold, after a change of one file, and shipped instead of built.

Measured in a copy of the checkout with a lab of its own, with the commands that an operator types.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.table import Table

from lab import engine_source, ssh
from lab.scratch_checkout import ScratchCheckout

_REPEATS = 3
_MIB = 1024**2
_INVENTORY = "inventories/builds.py"
_TEXT = '''"""One small server on each host that is up, all by one engine."""

from lab import engine_source
from lab.hosts import connection_data, hosts_up
from lab.layout import this_lab

_lab = this_lab()
_TINY = {{"name": "tiny", "profile": "tiny-single", "port": 8001}}
_SHARED = {{
    "instances": [{{**_TINY, "engine": "{engine}"}}],
    "hub_url": _lab.hub_url,
    "engine_sources": engine_source.urls(_lab),
    "keys_folder": str(_lab.keys),
    "archives_folder": str(_lab.archives),
}}
_numbers = [int(name.removeprefix("lab-")) for name in hosts_up(_lab)]
servers = [(_lab.host_name(n), {{**connection_data(_lab, n), **_SHARED}}) for n in _numbers]
'''
# Unmounts the cache that the lab's hosts share; below it is the host's own, which must be empty.
_COMPILER_CACHE = "/var/cache/corral/ccache"
_OWN_COMPILER_CACHE = f"umount {_COMPILER_CACHE} && rmdir {_COMPILER_CACHE}"
_RELEASES = "/opt/corral/engines"


@dataclass(frozen=True)
class Costs:
    """Costs of one engine. Build times are from the manifest; a shipment is a deploy to a host."""

    cold_seconds: int
    warm_seconds: int
    shipment_seconds: tuple[float, ...]
    archive_bytes: int


def table(report: Callable[[str], None]) -> Table:
    """Measure both engines; takes as long as building both from nothing."""
    columns = ("engine", "cold build (s)", "warm build (s)", "one more host (s)", "archive (MiB)")
    found = Table(*columns)
    for engine in engine_source.SOURCES:
        report(f"--- builds of {engine}")
        row = (engine, *_row(_measure(engine)))
        # A row takes long, so it is printed at once: a failure of the next must not lose it.
        report(" | ".join(row))
        found.add_row(*row)
    return found


def _row(costs: Costs) -> tuple[str, str, str, str]:
    median = statistics.median(costs.shipment_seconds)
    spread = f"{min(costs.shipment_seconds):.1f}-{max(costs.shipment_seconds):.1f}"
    return (
        str(costs.cold_seconds),
        f"{costs.warm_seconds} ({_percent(costs.warm_seconds, costs.cold_seconds)})",
        f"{median:.1f} ({spread}; {_percent(median, costs.cold_seconds)})",
        f"{costs.archive_bytes / _MIB:.1f}",
    )


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}% of cold"


def _measure(engine: str) -> Costs:
    checkout = ScratchCheckout.make("bench")
    checkout.run("corral", "lab", "down")
    (checkout.path / _INVENTORY).write_text(_TEXT.format(engine=engine))
    checkout.run("corral", "lab", "up", "--hosts", "1")
    ssh.run_on(checkout.layout, 1, _OWN_COMPILER_CACHE)
    _deploy(checkout)
    cold_seconds = _build_seconds(checkout, engine)
    _bump(checkout, engine)
    _deploy(checkout)
    warm_seconds = _build_seconds(checkout, engine)
    shipments = _ship(checkout)
    costs = Costs(cold_seconds, warm_seconds, shipments, _archive_bytes(checkout, engine))
    checkout.remove()
    return costs


def _deploy(checkout: ScratchCheckout, *arguments: str) -> None:
    checkout.run("pyinfra", _INVENTORY, "deploy.py", "-y", *arguments)


def _build_seconds(checkout: ScratchCheckout, engine: str) -> int:
    """Build time of the release that the instance runs, from the host that built it."""
    folder = f"{_RELEASES}/{engine}"
    shown = ssh.run_on(checkout.layout, 1, f"cat $(ls -td {folder}/*/manifest.json | head -1)")
    return int(json.loads(shown)["build_seconds"])


def _bump(checkout: ScratchCheckout, engine: str) -> None:
    commit = engine_source.bump(checkout.layout.engine_source, engine)
    entry = checkout.path / "catalog" / "engines" / f"{engine}.toml"
    before = engine_source.SOURCES[engine].commit
    entry.write_text(entry.read_text().replace(before, commit))
    checkout.run("corral", "lock", _INVENTORY)


def _ship(checkout: ScratchCheckout) -> tuple[float, ...]:
    """Times of deploys to a second host that lacks only the release."""
    checkout.run("corral", "lab", "up", "--hosts", "2")
    _deploy(checkout)
    return tuple(_ship_once(checkout) for _ in range(_REPEATS))


def _ship_once(checkout: ScratchCheckout) -> float:
    ssh.run_on(checkout.layout, 2, f"systemctl stop corral-tiny && rm -r {_RELEASES}/*")
    began = time.monotonic()
    _deploy(checkout, "--limit", "lab-2")
    return time.monotonic() - began


def _archive_bytes(checkout: ScratchCheckout, engine: str) -> int:
    """The newest archive in the controller's store."""
    folder = checkout.layout.archives / engine
    newest = max(folder.glob("*.tar.zst"), key=lambda path: path.stat().st_mtime)
    return newest.stat().st_size
