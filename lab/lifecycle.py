"""`up` and `down`: every step is safe to repeat, so the next run completes a killed one."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lab import (
    base_image,
    disks,
    hosts,
    locks,
    network,
    processes,
    reach,
    requirements,
    services,
    ssh,
)
from lab.layout import GATEWAY, Layout
from lab.platforms import DEFAULT

Report = Callable[[str], None]


def up(
    layout: Layout,
    count: int,
    report: Report,
    *,
    gateway: bool = False,
    provisioned: bool = False,
    platform: str = DEFAULT,
) -> None:
    """Bring the lab to at least this many running hosts; running hosts stay.

    + gateway: also the host that is the gateway in inventories/lab.py
    + provisioned: new hosts get the packages that a deploy installs
    + platform: distribution of new hosts
    """
    requirements.require()
    with locks.refuse_others(layout.lock_file, "corral lab up"):
        _folders(layout)
        with _step(report, f"network {layout.subnet}"):
            network.ensure(layout)
        asked = [*range(1, count + 1), *([GATEWAY] if gateway else [])]
        numbers = sorted({*hosts.present(layout), *asked})
        unproved = [n for n in numbers if not _proved(layout, n)]
        with ThreadPoolExecutor() as beside:
            served = beside.submit(services.prepare, layout)
            packages = base_image.PROVISIONED if provisioned else base_image.PACKAGES
            _boot(layout, numbers, packages, platform, report)
            with _step(report, f"hub at {layout.hub_url}, engine source at {layout.git_url}"):
                served.result()
                services.start(layout)
        with _step(report, f"{len(numbers)} hosts answer"):
            _each(lambda n: ssh.wait_until_booted(layout, n), numbers)
            _each(lambda n: ssh.refuse_failed_units(layout, n), unproved)
        hosts.record(layout, numbers)
        reach.check(layout, numbers[0], report)


def down(layout: Layout, report: Report) -> None:
    """Remove every process, network piece and file of the lab; caches stay."""
    requirements.require()
    with locks.refuse_others(layout.lock_file, "corral lab down"):
        with _step(report, "hosts and services stopped"):
            _stop(layout)
        with _step(report, "network and files removed"):
            if layout.state.exists():
                disks.remove(layout.state)
            network.remove(layout)
    remove_if_empty(layout.state_parent)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that labs share, unless another lab uses it or has just removed it."""
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise


def _folders(layout: Layout) -> None:
    for folder in (layout.hosts, layout.ssh, layout.log, layout.run, layout.hub, layout.keys):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    layout.compiler_cache.mkdir(parents=True, exist_ok=True)
    hosts.remove_half_made(layout)
    ssh.ensure_key(layout)


def _proved(layout: Layout, n: int) -> bool:
    """Whether an earlier `up` saw this boot of host n succeed; later failures are its user's."""
    return n in hosts.recorded(layout) and hosts.running(layout, n)


def _boot(
    layout: Layout, numbers: list[int], packages: Sequence[str], platform: str, report: Report
) -> None:
    off = [n for n in numbers if not hosts.running(layout, n)]
    how = (
        "from the cache" if base_image.is_ready(layout.base_cache, packages, platform) else "built"
    )
    with _step(report, f"base image, {how}"):
        base = base_image.ensure(layout.base_cache, packages, platform)

    def one(n: int) -> None:
        hosts.make(layout, n, base)
        hosts.boot(layout, n)

    with _step(report, f"{len(off)} of {len(numbers)} hosts made and booted"):
        _each(one, off)
    ssh.write_client_files(layout, numbers)


def _stop(layout: Layout) -> None:
    for record in processes.recorded(layout.run).values():
        processes.stop(record, at_once=True)
    hosts.clear_all(layout)


def _each(action: Callable[[int], object], numbers: list[int]) -> None:
    """Run the action for every host, some in parallel; raises the first error after all ended."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(action, numbers))


@contextmanager
def _step(report: Report, title: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    report(f"{time.monotonic() - began:6.1f} s  {title}")
