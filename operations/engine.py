"""Engine releases."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import operation

from corral.plan import ReleasePlan
from corral.settings import HostPaths
from operations import Commands, job


@operation()
def releases(missing: Sequence[ReleasePlan], *, paths: HostPaths) -> Commands:
    """Build engine releases from their pinned commits, detached from this connection.

    + missing: those that the host lacks; + paths: folders on the host.
    """
    if not missing:
        host.noop("all releases are installed")
        return
    for release in missing:
        spec = {**release.model_dump(mode="json"), "compiler_cache": paths.compiler_cache}
        yield from job.run(paths.helper, f"build-{release.engine}", "build", spec)
