"""Probes that send no request: the server's process, unit, socket and GPUs.

Each returns its name, whether it passed, and what was found.
"""

import ipaddress
import os
import time
from pathlib import Path

from corral_host import engines, runtimes
from corral_host.instance import unit_changes, unit_file
from corral_host.nvidia import nvidia_smi
from corral_host.packets import reserve
from corral_host.server.listener import processes_of, sockets_of
from corral_host.system import kernel
from corral_host.system.commands import HostError, sentence, show
from corral_host.system.processes import sockets


def main_pid(instance):
    pid = int(show(instance["unit"], "MainPID")["MainPID"])
    if pid == 0:
        raise HostError(f"{instance['unit']} is not running")
    return pid


def server_pid(instance):
    return runtimes.of(instance).server_pid(instance, main_pid(instance))


def check_process(instance):
    pid = server_pid(instance)
    program = os.readlink(f"/proc/{pid}/exe")
    argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    ok = runtimes.of(instance).is_planned(instance, pid) and argv == list(instance["argv"])
    detail = f"pid {pid}, as planned" if ok else f"pid {pid} runs {program} {' '.join(argv[1:])}"
    return "process", ok, detail


def check_drop_ins(instance):
    """No drop-in or other file changes the unit."""
    unit = instance["unit"]
    if files := unit_changes.strange_files(unit, instance["unit_path"]):
        return "drop-ins", False, sentence(*unit_changes.drop_in_fault(unit, files))
    main_pid(instance)
    stale = show(unit, "NeedDaemonReload")["NeedDaemonReload"] == "yes"
    detail = "its files changed since systemd read them" if stale else "none"
    return "drop-ins", not stale, detail


def check_environment(instance):
    """The server's variables are those of its unit; others may change what it serves to whom."""
    if coming := unit_changes.manager_variables(instance):
        return "environment", False, f"systemd would give its next start {', '.join(coming)}"
    names = unit_changes.strange_variables(instance, server_pid(instance))
    detail = f"not as planned: {', '.join(names)}" if names else "as planned"
    return "environment", not names, detail


def check_image(instance):
    """The image that the server runs in is the one that was proved."""
    problem = runtimes.of(instance).image_problem(instance, main_pid(instance))
    return "image", not problem, problem or "as proved"


def check_unit(instance):
    """The files of the next start are those of the planned generation, as Corral wrote them."""
    path, planned = instance["unit_path"], instance["generation"]
    installed = unit_file.installed_generation(path)
    if installed != planned:
        shown = f"generation {installed}" if installed else "no generation"
        return "unit", False, f"{path} has {shown}, planned {planned}"
    edited = ", ".join(unit_file.edited_files(instance))
    detail = f"edited: {edited}; a deploy overwrites it" if edited else f"generation {planned}"
    return "unit", not edited, detail


def check_enabled(instance):
    """A boot starts the unit, and not its spare, which exists only during a switch."""
    state, spare = unit_file.unit_file_state(instance["unit"]), instance["activation"]["spare"]
    wrong = [] if state == unit_file.ENABLED else [f"{instance['unit']} is {state or 'not there'}"]
    if spare and unit_file.unit_file_state(spare["unit"]) == unit_file.ENABLED:
        wrong.append(f"{spare['unit']} is enabled")
    return "enabled", not wrong, ", ".join(wrong) or "starts at boot"


def check_listening(instance):
    """No process of the unit listens elsewhere; on loopback among themselves if they may."""
    pid, end = main_pid(instance), instance["endpoint"]
    mine = sockets_of(instance["unit"])
    found = {(address, port) for address, port, inode in sockets(pid) if inode in mine}
    planned = [] if end["socket"] else [(end["address"], end["port"])]
    others = found.difference(planned)
    between = {one for one in others if is_loopback(one[0])} & allowed(instance, others)
    seen = sorted(f"{address}:{port}" for address, port in found - between)
    wanted = [f"{address}:{port}" for address, port in planned]
    where = ", ".join(seen) or end["socket"]
    more = f", {len(between)} loopback ports of its own" if between else ""
    return "listening", seen == wanted, f"on {where}{more}, planned {wanted or end['socket']}"


def allowed(instance, ports):
    return ports if engines.of(instance).loopback_ports else set()


def is_loopback(address):
    return ipaddress.ip_address(address).is_loopback


def check_reserved(instance):
    """While the server is down, nobody else can answer from its port."""
    return ("reserved", *reserve.port_status(instance["endpoint"]["port"]))


def check_vram(instance):
    """The processes of the server hold memory of planned GPUs, and of no others."""
    main, smi = main_pid(instance), nvidia_smi.ask()
    ours = {main, *processes_of(instance["unit"])}
    planned = planned_gpus(instance, smi["gpus"])
    mine = [process for process in smi.get("processes", ()) if process["pid"] in ours]
    held = {}
    for process in mine:
        held.setdefault(process["gpu"], []).append(process["used_mib"])
    names = {gpu["uuid"]: f"GPU {gpu['index']}" for gpu in smi["gpus"]}
    # Some drivers in containers do not report how much; that the process is listed is enough.
    parts = [f"{amount(parts)} MiB of {names[gpu]}" for gpu, parts in held.items()]
    ok = any(process["used_mib"] is None or process["used_mib"] > 0 for process in mine)
    who = ", ".join(str(pid) for pid in sorted({process["pid"] for process in mine} or {main}))
    fine = ok and set(held) <= set(planned)
    return "vram", fine, f"pid {who} holds {', '.join(parts) or '0 MiB'}"


def amount(parts):
    return "some" if None in parts else sum(parts)


def check_xid(instance):
    """The kernel log has no error of the server's GPUs since it started."""
    main_pid(instance)
    entered = int(show(instance["unit"], "ActiveEnterTimestampMonotonic").popitem()[1]) / 1e6
    started = time.time() - (time.monotonic() - entered)
    log, gpus = kernel.xids(), nvidia_smi.ask()["gpus"]
    if log["xids_unreadable"]:
        raise HostError(f"the kernel log is unreadable: {log['xids_unreadable']}")
    planned = planned_gpus(instance, gpus)
    others = {gpu["pci"] for gpu in gpus if gpu["uuid"] not in planned}
    since = [x for x in log["xids"] if x["time_seconds"] >= started and x["pci"] not in others]
    errors = ", ".join(f"Xid {xid['code']} of {xid['pci']}" for xid in since)
    return "xid", not since, errors or "none since it started"


def planned_gpus(instance, gpus):
    """Uuids of the GPUs that an instance may use: all, if its plan names none."""
    named = instance["gpus"]
    return [g["uuid"] for g in gpus if not named or g["index"] in named or g["uuid"] in named]
