"""The steps of a switch: unit files by one rename, servers started and stopped."""

import time
from pathlib import Path

from corral_host.activation import journal as tasks
from corral_host.activation import watchdog
from corral_host.activation.drain import drain
from corral_host.instance.state import installed_generation
from corral_host.packets import redirect, reserve_switch
from corral_host.server import staged_keys
from corral_host.system.commands import FAULTS, output, quiet, rename, show, sync, write_atomic

# Beside a unit, where systemd takes them for no unit.
BEFORE = ".before"
NEXT = ".next"
# What a server that is not wanted any more may take to end by itself.
END_SECONDS = 10
ENDED = ("inactive", "failed")


def spare_of(instance):
    """The same server on its spare port."""
    spare = instance["activation"]["spare"]
    return {**instance, **{name: spare[name] for name in ("unit", "unit_path", "argv", "endpoint")}}


def prepare(task):
    """All that a switch and its revert will need, on the disk; nothing that serves is touched.

    The guard first: an activation that is written down is never without one.
    """
    staged_keys.clear(task)
    watchdog.write(task)
    output("systemctl", "daemon-reload")
    watchdog.arm(task)
    task["reserves"] = reserve_switch.unreserved(task)
    tasks.save(task)
    reserve_switch.hold(task)
    unit = Path(task["unit_path"])
    if task["from"]:
        write_atomic(f"{unit}{BEFORE}", text_of(task, task["from"]))
    staged = Path(task["folder"]) / "generations" / task["to"] / "unit"
    write_atomic(f"{unit}{NEXT}", staged.read_text())
    # Last, as a server that is started again from here on reads them.
    staged_keys.put(task)
    if task["how"] == "side by side":
        spare = task["after"]["activation"]["spare"]
        write_atomic(spare["unit_path"], spare["unit_text"])
        output("systemctl", "daemon-reload")


def put(task):
    """The new unit, in one rename."""
    unit = task["unit_path"]
    rename(f"{unit}{NEXT}", unit)
    output("systemctl", "daemon-reload")
    output("systemctl", "enable", "--quiet", task["unit"])


def put_back(task):
    """Keys and unit of before, each in one rename, unless somebody did that already."""
    staged_keys.put_back(task)
    unit = task["unit_path"]
    try:
        rename(f"{unit}{BEFORE}", unit)
    except FileNotFoundError:
        if installed_generation(unit) != task["from"]:
            write_atomic(unit, text_before(task))
    sync(Path(unit).parent)
    output("systemctl", "daemon-reload")


def text_before(task):
    """The unit of before: as it was kept for the way back, else as it was staged."""
    before = Path(f"{task['unit_path']}{BEFORE}")
    return before.read_text() if before.exists() else text_of(task, task["from"])


def text_of(task, generation):
    """A unit as it was staged, which passed a gate; the installed one may be edited."""
    staged = Path(task["folder"]) / "generations" / generation / "unit"
    return (staged if staged.exists() else Path(task["unit_path"])).read_text()


def start(unit):
    quiet("reset-failed", unit)
    # What goes wrong is told by the gate, in the server's own words.
    quiet("restart", unit)


def stop(unit):
    output("systemctl", "stop", unit)


def end(unit):
    """Stop a server that nobody is to wait for: one that hangs hears no signal but SIGKILL."""
    quiet("stop", "--no-block", unit)
    deadline = time.monotonic() + END_SECONDS
    while show(unit, "ActiveState")["ActiveState"] not in ENDED and time.monotonic() < deadline:
        time.sleep(0.1)
    quiet("kill", "--signal=KILL", unit)
    quiet("stop", unit)


def withdraw(task):
    """A unit that served nothing before goes altogether."""
    end(task["unit"])
    staged_keys.put_back(task)
    quiet("disable", "--quiet", task["unit"])
    Path(task["unit_path"]).unlink(missing_ok=True)


def clear(task):
    """What a switch needed beside it goes. Needs no disk space.

    Gives what went wrong; each step is taken whatever became of the others.
    """
    wrong = []
    steps = [clear_spare] if task["how"] == "side by side" else []
    for step in (*steps, clear_rules, clear_files):
        try:
            wrong.append(step(task))
        except FAULTS as fault:
            wrong.append(str(fault))
    return [one for one in wrong if one]


def clear_rules(task):
    redirect.remove(task["instance"])


def clear_files(task):
    for suffix in (BEFORE, NEXT):
        Path(f"{task['unit_path']}{suffix}").unlink(missing_ok=True)
    staged_keys.clear(task)


def clear_spare(task):
    """Requests that it still works on are waited for; gives what is to be said of the others."""
    spare = spare_of(task["after"])
    try:
        cut = leave_spare(task, spare)
    finally:
        end(spare["unit"])
        quiet("reset-failed", spare["unit"])
        Path(spare["unit_path"]).unlink(missing_ok=True)
        output("systemctl", "daemon-reload")
    limit = task["after"]["activation"]["drain_seconds"]
    return f"{cut} requests took longer than {limit} s and were cut" if cut else None


def leave_spare(task, spare):
    """New connections reach the server itself again; those of before end, or are told to."""
    way = task["instance"], task["onward"], redirect.LET_GO
    redirect.lay(*way)
    port, limit = spare["endpoint"]["port"], task["after"]["activation"]["drain_seconds"]
    return drain(spare, limit, close_kept=lambda: redirect.lay(*way, kept=(port,)))
