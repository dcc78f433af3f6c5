"""Checks of keys: the controller's store, the files of this host, and what runs with them.

The store is compared by digests with the salt of the question: no key leaves its place.
"""

import hashlib
import hmac
import os
import re

from corral_host.gateway.socket import ask
from corral_host.server import staged_keys
from corral_host.server.held_keys import CLIENTS, METRICS, UPSTREAM, gateway_keys, loaded, read
from corral_host.system.commands import FAULTS

STORED, LOADED = "keys-stored", "keys-loaded"
ADOPT = "`corral keys adopt {name} --replace` takes over what is here"


def key_rows(plan):
    """Rows for each instance and each alias, where the question has digests (``keys``)."""
    if "keys" not in plan:
        return
    for instance in plan["instances"]:
        note = others_wait(instance["key_path"])
        yield row(instance["name"], STORED, stored, plan, instance, note=note)
        yield row(instance["name"], LOADED, runs_with, instance)
    gateway = plan.get("gateway") or {"pools": []}
    for pool in gateway["pools"]:
        subject = f"gateway {pool['alias']}"
        yield row(subject, STORED, gateway_stored, plan, pool)
        yield row(subject, LOADED, gateway_runs_with, gateway["folder"], pool)


def row(subject, check, one, *arguments, note=""):
    """``note``: what is said where no check fails."""
    try:
        problem = one(*arguments)
    except FAULTS as fault:
        problem = f"{type(fault).__name__}: {fault}"
    good = {STORED: "those of the controller's store", LOADED: "those of the host's file"}[check]
    detail = problem or f"{good}{note}"
    return {"instance": subject, "check": check, "ok": not problem, "detail": detail}


def digest(salt, text):
    """As corral/keys/proof.py makes it."""
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()


def stored(plan, instance):
    """What differs: the host's key file must be the store's, and root's alone."""
    name, path = f"{plan['host']}/{instance['name']}", instance["key_path"]
    problem = compared(plan["keys"], instance["name"], name, read(path), path)
    if problem and the_stores_wait(plan["keys"], instance):
        return (
            f"{path} has other keys than the store of this controller, whose keys wait in "
            f"{staged_keys.staged_path(path)} for the next activation. Next: deploy, which puts "
            f"them in place; or {ADOPT.format(name=name)}, and no activation comes"
        )
    if not problem and os.stat(path).st_mode & 0o077:
        return f"{path} can be read by others. Next: run the deploy again"
    return problem


def the_stores_wait(keys, instance):
    waiting = read(staged_keys.staged_path(instance["key_path"]))
    wanted = keys["digests"].get(instance["name"])
    return bool(waiting and wanted) and hmac.compare_digest(digest(keys["salt"], waiting), wanted)


def others_wait(key_path):
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
    """What differs: the server must have been started with the key file that is there."""
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
    """HAProxy read its files when it was loaded; they may be others by now."""
    files, found = in_haproxy(), gateway_keys(folder)
    own = {
        CLIENTS + pool["name"]: found.get(f"gateway-{pool['name']}", ""),
        METRICS: found.get("gateway_metrics", ""),
    }
    wrong = [name for name, text in own.items() if text and files.get(name) != words(text)]
    upstream = files.get(UPSTREAM, {}).get(pool["name"])
    wrong += [UPSTREAM] if upstream != found.get(f"upstream-{pool['name']}", "").strip() else []
    if wrong:
        told = ", ".join(wrong)
        return f"HAProxy has other keys than its files: {told}. Next: systemctl reload haproxy"
    return ""


def words(text):
    return set(text.split())


def in_haproxy():
    """Name of each file of keys -> the keys that HAProxy has of it; of the map a dictionary."""
    found = {}
    for kind in ("acl", "map"):
        for number, path in re.findall(r"^(\d+) \((\S+)\)", ask(f"show {kind}"), re.MULTILINE):
            lines = [line.split()[1:] for line in ask(f"show {kind} #{number}").splitlines()]
            entries = dict(lines) if kind == "map" else {one for line in lines for one in line}
            found[os.path.basename(path)] = entries
    return found
