"""The steps of a switch: unit files by one rename, servers started and stopped."""

import time
from pathlib import Path

from corral_host.activation import journal, watchdog
from corral_host.activation.activation import SIDE_BY_SIDE
from corral_host.activation.drain import drain
from corral_host.instance.state import installed_generation
from corral_host.packets import redirect, reserve_switch
from corral_host.server import staged_keys
from corral_host.system.commands import FAULTS, output, quiet, rename, show, sync, write_atomic

# Suffixes of files beside a unit; systemd does not read such names as units.
BEFORE = ".before"
NEXT = ".next"
# How long a server that is not needed any more may take to stop by itself.
END_SECONDS = 10
ENDED = ("inactive", "failed")


def spare_of(instance):
    """The same server on its spare port."""
    spare = instance["activation"]["spare"]
    return {**instance, **{name: spare[name] for name in ("unit", "unit_path", "argv", "endpoint")}}


def prepare(activation):
    """Write all that a switch and its revert will need to disk; touches nothing that serves.

    The guard comes first: a journal without a guard would be settled by nobody.
    """
    staged_keys.clear(activation.plan["key_path"])
    watchdog.write(activation)
    output("systemctl", "daemon-reload")
    watchdog.arm(activation)
    activation.reserves = reserve_switch.unreserved(activation)
    journal.save(activation)
    reserve_switch.hold(activation)
    unit = Path(activation.unit_path)
    if activation.old:
        write_atomic(f"{unit}{BEFORE}", text_of(activation, activation.old))
    staged = Path(activation.folder) / "generations" / activation.new / "unit"
    write_atomic(f"{unit}{NEXT}", staged.read_text())
    # The keys come last: a server that restarts from here on reads them.
    if activation.rekeyed:
        staged_keys.put(activation.plan["key_path"])
    if activation.how == SIDE_BY_SIDE:
        spare = activation.plan["activation"]["spare"]
        write_atomic(spare["unit_path"], spare["unit_text"])
        output("systemctl", "daemon-reload")


def put(activation):
    """Install the new unit by one rename, and enable it."""
    unit = activation.unit_path
    rename(f"{unit}{NEXT}", unit)
    # One reload reads both; each runs all generators of the host.
    output("systemctl", "enable", "--quiet", "--no-reload", activation.unit)
    output("systemctl", "daemon-reload")


def restore_unit(activation):
    """Restore the previous keys and unit, each by one rename, unless that was done already."""
    staged_keys.restore(activation.plan["key_path"])
    unit = activation.unit_path
    try:
        rename(f"{unit}{BEFORE}", unit)
    except FileNotFoundError:
        if installed_generation(unit) != activation.old:
            write_atomic(unit, text_before(activation))
    sync(Path(unit).parent)
    output("systemctl", "daemon-reload")


def text_before(activation):
    """Text of the previous unit: as kept for the revert, else as staged."""
    before = Path(f"{activation.unit_path}{BEFORE}")
    return before.read_text() if before.exists() else text_of(activation, activation.old)


def text_of(activation, generation):
    """A generation's unit as staged, which passed a gate; the installed one may be edited."""
    staged = Path(activation.folder) / "generations" / generation / "unit"
    return (staged if staged.exists() else Path(activation.unit_path)).read_text()


def refuse_until_ready(activation):
    """Who is refused a connection asks another server at once; one that loads would answer 503.

    A gateway that drained this server may send it requests all the same: a lease ended too early,
    or a reload came between. Without packet rules the server answers for itself.
    """
    ends = activation.previous["endpoint"], activation.plan["endpoint"]
    redirect.refuse(activation.name, *(end["port"] for end in ends))


def start(unit):
    quiet("reset-failed", unit)
    # The gate reports a failed start, with the server's log.
    quiet("restart", unit)


def stop(unit):
    output("systemctl", "stop", unit)


def end(unit):
    """Stop a server without waiting long: one that hangs reacts to no signal but SIGKILL."""
    quiet("stop", "--no-block", unit)
    deadline = time.monotonic() + END_SECONDS
    while show(unit, "ActiveState")["ActiveState"] not in ENDED and time.monotonic() < deadline:
        time.sleep(0.1)
    quiet("kill", "--signal=KILL", unit)
    quiet("stop", unit)


def withdraw(activation):
    """Remove a unit that served no generation before."""
    end(activation.unit)
    staged_keys.restore(activation.plan["key_path"])
    quiet("disable", "--quiet", activation.unit)
    Path(activation.unit_path).unlink(missing_ok=True)


def clear(activation):
    """Remove what only the switch needed. Needs no disk space.

    Runs every step even if one fails; returns what went wrong.
    """
    wrong = []
    steps = [clear_spare] if activation.how == SIDE_BY_SIDE else []
    for step in (*steps, clear_rules, clear_files):
        try:
            wrong.append(step(activation))
        except FAULTS as fault:
            wrong.append(str(fault))
    return [one for one in wrong if one]


def clear_rules(activation):
    redirect.remove(activation.name)


def clear_files(activation):
    for suffix in (BEFORE, NEXT):
        Path(f"{activation.unit_path}{suffix}").unlink(missing_ok=True)
    staged_keys.clear(activation.plan["key_path"])


def clear_spare(activation):
    """Drain and remove the spare server; returns a message if requests were cut."""
    spare = spare_of(activation.plan)
    try:
        cut = drain_spare(activation, spare)
    finally:
        end(spare["unit"])
        quiet("reset-failed", spare["unit"])
        Path(spare["unit_path"]).unlink(missing_ok=True)
        output("systemctl", "daemon-reload")
    limit = activation.drain_seconds
    return f"{cut} requests took longer than {limit} s and were cut" if cut else None


def drain_spare(activation, spare):
    """Direct new connections to the server itself again and drain the spare's connections."""
    way = activation.name, activation.onward, redirect.LET_GO
    redirect.lay(*way)
    port, limit = spare["endpoint"]["port"], activation.drain_seconds
    return drain(spare, limit, close_kept=lambda: redirect.lay(*way, kept=(port,)))
