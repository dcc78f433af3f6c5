"""Compare running instances with their plan: by process, by socket, by HTTP."""

import json
import os
import time
from functools import partial
from pathlib import Path

from corral_host import engines
from corral_host.checks.keys import key_rows
from corral_host.gateway.probes import check_gateway
from corral_host.instance import unit_changes, unit_file
from corral_host.nvidia import nvidia_smi
from corral_host.packets import reserve
from corral_host.server.http import call, chat, first_key
from corral_host.system import kernel
from corral_host.system.commands import FAULTS, HostError, sentence, show
from corral_host.system.processes import open_sockets, sockets

HANGS = "no answer in time"


def check(plan):
    rows = []
    for instance in plan["instances"]:
        rows += [{"instance": instance["name"], **row} for row in check_instance(instance)]
    if gateway := plan.get("gateway"):
        rows += check_gateway(gateway, plan["paths"]["units"])
    return [*rows, *key_rows(plan)]


def check_instance(instance):
    """Every check of one instance; a check that cannot be made counts as failed."""
    health = attempt(check_health, instance)
    alone = (check_process, check_unit, check_drop_ins, check_environment, check_enabled)
    yield from (*(attempt(one, instance) for one in alone), health)
    asking = [check_keys, check_model, check_slots, check_completion, check_stream]
    asking += [check_metrics] if instance["metrics"] else []
    silence = "" if health["ok"] else "not healthy"
    for one in asking:
        # A server that hangs would keep each of them waiting in turn.
        row = failed(one, f"not asked: {silence}") if silence else attempt(one, instance)
        silence = silence or (HANGS if row["detail"] == HANGS else "")
        yield row
    yield attempt(check_listening, instance)
    if instance["endpoint"]["port"]:
        yield attempt(check_reserved, instance)
    if instance["uses_gpu"]:
        yield attempt(check_vram, instance)
        yield attempt(check_xid, instance)


def attempt(one, instance):
    try:
        name, ok, detail = one(instance)
    except TimeoutError:
        return failed(one, HANGS)
    except FAULTS as error:
        return failed(one, f"{type(error).__name__}: {error}")
    return {"check": name, "ok": ok, "detail": detail}


def failed(one, detail):
    return {"check": one.__name__[6:].replace("_", "-"), "ok": False, "detail": detail}


def main_pid(instance):
    pid = int(show(instance["unit"], "MainPID")["MainPID"])
    if pid == 0:
        raise HostError(f"{instance['unit']} is not running")
    return pid


def check_process(instance):
    pid = main_pid(instance)
    program = os.readlink(f"/proc/{pid}/exe")
    argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    ok = program == instance["argv"][0] and argv == list(instance["argv"])
    detail = f"pid {pid}, as planned" if ok else f"pid {pid} runs {program} {' '.join(argv[1:])}"
    return "process", ok, detail


def check_drop_ins(instance):
    """Its unit file alone says what runs."""
    unit = instance["unit"]
    if files := unit_changes.strange_files(unit, instance["unit_path"]):
        return "drop-ins", False, sentence(*unit_changes.told(unit, files))
    main_pid(instance)
    stale = show(unit, "NeedDaemonReload")["NeedDaemonReload"] == "yes"
    detail = "its files changed since systemd read them" if stale else "none"
    return "drop-ins", not stale, detail


def check_environment(instance):
    """Its variables are those of its unit: any other may change what it serves, and to whom."""
    if coming := unit_changes.manager_variables(instance):
        return "environment", False, f"systemd would give its next start {', '.join(coming)}"
    names = unit_changes.strange_variables(instance, main_pid(instance))
    detail = f"not as planned: {', '.join(names)}" if names else "as planned"
    return "environment", not names, detail


def check_unit(instance):
    """What the next start would read is the planned generation, as Corral wrote it."""
    path, planned = instance["unit_path"], instance["generation"]
    installed = unit_file.installed_generation(path)
    if installed != planned:
        shown = f"generation {installed}" if installed else "no generation"
        return "unit", False, f"{path} has {shown}, planned {planned}"
    edited = ", ".join(unit_file.edited_files(instance))
    detail = f"edited: {edited}; a deploy puts it back" if edited else f"generation {planned}"
    return "unit", not edited, detail


def check_enabled(instance):
    """A boot starts it, and not its spare, which is there only while a switch goes on."""
    state, spare = unit_file.unit_file_state(instance["unit"]), instance["activation"]["spare"]
    told = [] if state == unit_file.ENABLED else [f"{instance['unit']} is {state or 'not there'}"]
    if spare and unit_file.unit_file_state(spare["unit"]) == unit_file.ENABLED:
        told.append(f"{spare['unit']} is enabled")
    return "enabled", not told, ", ".join(told) or "starts at boot"


def check_health(instance):
    code, body = call(instance, "GET", "/health", timeout=10)
    return "health", code == 200, f"{code} {body.strip()[:80]}"


def check_keys(instance):
    codes = {}
    for route in instance["keyed_routes"]:
        method, path = route.split()
        codes[route] = call(instance, method, path, chat(instance) if method == "POST" else None)[0]
    wide_open = [f"{route} answered {code}" for route, code in codes.items() if code != 401]
    return (
        "keys",
        not wide_open,
        ", ".join(wide_open) or f"{len(codes)} routes refuse without a key",
    )


def keyed(instance, path):
    code, body = call(instance, "GET", path, key=first_key(instance))
    if code != 200:
        raise HostError(f"{path} answered {code}")
    return body


def check_model(instance):
    served = json.loads(keyed(instance, "/v1/models"))["data"][0]["id"]
    return "model", served == instance["alias"], f"serves as {served}"


def check_slots(instance):
    """Where the server tells them."""
    found = engines.of(instance).slots(partial(keyed, instance))
    if found is None:
        return "slots", True, "not told by this engine"
    slots, context = found
    ok = [slots, context] == [instance["slots"], instance["context_tokens_per_slot"]]
    return "slots", ok, f"{slots} slots of {context} tokens"


def check_completion(instance):
    key = first_key(instance)
    code, body = call(instance, "POST", "/v1/chat/completions", chat(instance), key=key)
    if code != 200:
        return "completion", False, f"{code} {body.strip()[:200]}"
    message = json.loads(body)["choices"][0]["message"]
    text = (message.get("content") or "") + (message.get("reasoning_content") or "")
    return "completion", bool(text.strip()), repr(text[:60])


def check_stream(instance):
    key = first_key(instance)
    code, body = call(
        instance, "POST", "/v1/chat/completions", chat(instance, stream=True), key=key
    )
    chunks = [line[6:] for line in body.splitlines() if line.startswith("data: ")]
    ok = code == 200 and len(chunks) > 1 and chunks[-1] == "[DONE]"
    return "stream", ok, f"{len(chunks)} events, last {chunks[-1][:40] if chunks else 'none'}"


def check_metrics(instance):
    body = keyed(instance, "/metrics")
    count = sum(1 for line in body.splitlines() if line and not line.startswith("#"))
    return "metrics", count > 0, f"{count} values"


def check_listening(instance):
    pid = main_pid(instance)
    mine = open_sockets(pid)
    found = sorted(f"{address}:{port}" for address, port, inode in sockets(pid) if inode in mine)
    end = instance["endpoint"]
    planned = [] if end["socket"] else [f"{end['address']}:{end['port']}"]
    where = ", ".join(found) or end["socket"]
    return "listening", found == planned, f"on {where}, planned {planned or end['socket']}"


def check_reserved(instance):
    """While it is down, nobody else answers from its port."""
    return ("reserved", *reserve.told(instance["endpoint"]["port"]))


def check_vram(instance):
    """Its own process holds memory of planned GPUs, and of no other."""
    pid, smi = main_pid(instance), nvidia_smi.ask()
    planned = planned_gpus(instance, smi["gpus"])
    held = {p["gpu"]: p["used_mib"] for p in smi.get("processes", ()) if p["pid"] == pid}
    names = {gpu["uuid"]: f"GPU {gpu['index']}" for gpu in smi["gpus"]}
    # Some drivers in containers do not tell how much; that a process is listed says enough.
    told = [f"{'some' if mib is None else mib} MiB of {names[gpu]}" for gpu, mib in held.items()]
    ok = any(mib is None or mib > 0 for mib in held.values()) and set(held) <= set(planned)
    return "vram", ok, f"pid {pid} holds {', '.join(told) or '0 MiB'}"


def check_xid(instance):
    """No error of its GPUs in the kernel log since it started."""
    main_pid(instance)
    entered = int(show(instance["unit"], "ActiveEnterTimestampMonotonic").popitem()[1]) / 1e6
    started = time.time() - (time.monotonic() - entered)
    log, gpus = kernel.xids(), nvidia_smi.ask()["gpus"]
    if log["xids_unreadable"]:
        raise HostError(f"the kernel log is unreadable: {log['xids_unreadable']}")
    planned = planned_gpus(instance, gpus)
    others = {gpu["pci"] for gpu in gpus if gpu["uuid"] not in planned}
    since = [x for x in log["xids"] if x["time_seconds"] >= started and x["pci"] not in others]
    told = ", ".join(f"Xid {xid['code']} of {xid['pci']}" for xid in since)
    return "xid", not since, told or "none since it started"


def planned_gpus(instance, gpus):
    """Uuids of the GPUs that an instance may use; a plan that names none means all."""
    named = instance["gpus"]
    return [g["uuid"] for g in gpus if not named or g["index"] in named or g["uuid"] in named]
