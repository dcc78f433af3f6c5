"""Kernel settings of the machine that labs raise while one is up, and restore afterwards."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from lab import locks
from lab.layout import Layout

# Name of the saved value -> the setting, and the lowest value that labs need.
_SETTINGS = {
    "ip_forward": (Path("/proc/sys/net/ipv4/ip_forward"), 1),
    # All hosts of all labs share root's limit; a booted host uses about 15 of the usual 128.
    "max_user_instances": (Path("/proc/sys/fs/inotify/max_user_instances"), 4096),
}


def ensure(layout: Layout) -> None:
    """Raise settings that are too low; the first value is saved for `restore`."""
    with _lock(layout):
        for name, (setting, least) in _SETTINGS.items():
            before, saved = setting.read_text(), layout.state_parent / name
            if int(before) >= least:
                continue
            if not saved.exists():
                saved.write_text(before)
            setting.write_text(str(least))


def restore(layout: Layout) -> None:
    """Restore the values from before the first lab, if this lab is the last one."""
    with _lock(layout):
        others = [p for p in layout.state_parent.iterdir() if p.is_dir() and p != layout.state]
        for name, (setting, _) in _SETTINGS.items():
            saved = layout.state_parent / name
            if saved.exists() and not others:
                setting.write_text(saved.read_text())
                saved.unlink()


def _lock(layout: Layout) -> AbstractContextManager[None]:
    return locks.wait_for_others(layout.state_parent / "kernel.lock", "changing kernel settings")
