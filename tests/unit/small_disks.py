"""Disks that have no room, for what the controller writes."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE_KIB = 64


def fill_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the disk says at the last moment that it is full, as network ones do."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A real file system of 64 KiB; skips the test of who may not mount one."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "corral-test", str(folder)]
    subprocess.run(command, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        # Also where a test has put something in the place of programs.
        assert not folder.is_mount()
