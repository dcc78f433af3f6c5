"""Compare keys: those of the controller's store, of this host's files, and of running programs.

The store is compared by digests with a salt of the request, so no key is sent.
"""

import hashlib
import hmac
import os

from corral_host.gateway.loaded_keys import in_haproxy
from corral_host.server import staged_keys
from corral_host.server.held_keys import CLIENTS, METRICS, UPSTREAM, gateway_keys, loaded, read
from corral_host.system.commands import FAULTS

STORED, LOADED = "keys-stored", "keys-loaded"
ADOPT = "`corral keys adopt {name} --replace` takes over what is here"


def key_rows(plan):
    """Rows for each instance and each alias; none if the request has no digests (``keys``)."""
    if "keys" not in plan:
        return
    for instance in plan["instances"]:
        note = staged_note(instance["key_path"])
        yield row(instance["name"], STORED, stored, plan, instance, note=note)
        yield row(instance["name"], LOADED, runs_with, instance)
    gateway = plan.get("gateway") or {"pools": []}
    for pool in gateway["pools"]:
        subject = f"gateway {pool['alias']}"
        yield row(subject, STORED, gateway_stored, plan, pool)
        yield row(subject, LOADED, gateway_runs_with, gateway["folder"], pool)


def row(subject, check, one, *arguments, note=""):
    """A row. ``note``: appended to the detail if the check passes."""
    try:
        problem = one(*arguments)
    except FAULTS as fault:
        problem = f"{type(fault).__name__}: {fault}"
    good = {STORED: "those of the controller's store", LOADED: "those of the host's file"}[check]
    detail = problem or f"{good}{note}"
    return {"instance": subject, "check": check, "ok": not problem, "detail": detail}


def digest(salt, text):
    """Digest of keys, as corral/keys/proof.py makes it."""
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()


def stored(plan, instance):
    """The problem, or "": the key file must have the store's keys and be readable by root only."""
    name, path = f"{plan['host']}/{instance['name']}", instance["key_path"]
    problem = compared(plan["keys"], instance["name"], name, read(path), path)
    if problem and are_staged(plan["keys"], instance):
        return (
            f"{path} has other keys than the store of this controller, whose keys wait in "
            f"{staged_keys.staged_path(path)} for the next activation. Next: deploy, which puts "
            f"them in place; or {ADOPT.format(name=name)}, and the next deploy discards the others"
        )
    if not problem and os.stat(path).st_mode & 0o077:
        return f"{path} can be read by others. Next: run the deploy again"
    return problem


def are_staged(keys, instance):
    """Whether the store's keys are staged for an instance."""
    waiting = read(staged_keys.staged_path(instance["key_path"]))
    wanted = keys["digests"].get(instance["name"])
    return bool(waiting and wanted) and hmac.compare_digest(digest(keys["salt"], waiting), wanted)


def staged_note(key_path):
    """Note on other keys that are staged, or ""."""
    if not staged_keys.waits(key_path):
        return ""
    path = staged_keys.staged_path(key_path)
    return f"; others wait in {path}, and go with the next deploy from this store"


def compared(keys, key, name, text, place):
    wanted = keys["digests"].get(key)
    if wanted is None:
        return (
            f"the store of this controller has no keys of {name}. Next: `corral keys adopt {name}`"
        )
    if text is None:
        return f"{place} is not there. Next: deploy, which puts the store's keys there"
    if not hmac.compare_digest(digest(keys["salt"], text), wanted):
        return (
            f"{place} has other keys than the store of this controller. Next: deploy, which puts "
            f"the store's keys there; or {ADOPT.format(name=name)}"
        )
    return ""


def runs_with(instance):
    """The problem, or "": the server must have been started with the current key file."""
    running = loaded(instance)
    if running is None:
        return f"{instance['unit']} is not running"
    if running != read(instance["key_path"]):
        return "it was started with other keys than the host's file has. Next: deploy"
    return ""


def gateway_stored(plan, pool):
    found, folder = gateway_keys(plan["gateway"]["folder"]), plan["gateway"]["folder"]
    names = [f"gateway-{pool['name']}", f"upstream-{pool['name']}"]
    names += ["gateway_metrics"] if plan["gateway"]["metrics_port"] else []
    problems = [
        compared(plan["keys"], key, f"{plan['host']}/{key}", found.get(key), f"{folder}: {key}")
        for key in names
    ]
    return "; ".join(filter(None, problems))


def gateway_runs_with(folder, pool):
    """The problem, or "": HAProxy's keys, read when it was loaded, must be those of its files."""
    files, found = in_haproxy(), gateway_keys(folder)
    own = {
        CLIENTS + pool["name"]: found.get(f"gateway-{pool['name']}", ""),
        METRICS: found.get("gateway_metrics", ""),
    }
    wrong = [name for name, text in own.items() if text and files.get(name) != set(text.split())]
    upstream = files.get(UPSTREAM, {}).get(pool["name"])
    wrong += [UPSTREAM] if upstream != found.get(f"upstream-{pool['name']}", "").strip() else []
    if wrong:
        names = ", ".join(wrong)
        return f"HAProxy has other keys than its files: {names}. Next: systemctl reload haproxy"
    return ""
