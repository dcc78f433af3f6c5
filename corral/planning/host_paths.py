"""Folders of one host: those of all hosts, and what its inventory says of the weights."""

from __future__ import annotations

from corral.inventory.hosts import Host
from corral.paths import HOST_PATHS, HostPaths


def host_paths(host: Host, paths: HostPaths = HOST_PATHS) -> HostPaths:
    """``paths``, with the host's own folder of weights if it has one."""
    folder = host.spec.models_folder
    return paths.model_copy(update={"models_folder": folder}) if folder else paths
