"""Change a gateway: validate the new generation, switch, prove it as a client, else revert.

A generation that is not proved yet is marked so. If the process that switched dies, a systemd timer
reverts to the previous generation.
"""

import json
import shutil
from pathlib import Path

from corral_shared.gateway_lines import base, lines_of, server_lines, with_lines

from corral_host.gateway import probes
from corral_host.gateway.control import changing, later, serves
from corral_host.gateway.generations import (
    CONFIG,
    HAPROXY,
    UNPROVED,
    current,
    digest,
    gateway_state,
    listens,
    refuse_taken,
    revert,
    switch,
    unnamed,
    write,
)
from corral_host.gateway.loaded_keys import tell_old_workers
from corral_host.gateway.socket import running_generation, servers
from corral_host.server.key_digest import key_digest
from corral_host.system.commands import (
    HostError,
    linked,
    output,
    point,
    read_json,
    write_atomic,
)
from corral_host.system.locks import refuse_other_operator

# Longer than a switch, its proof and a revert take.
PROOF_SECONDS = 180
PROOF_UNIT = "corral-gateway-proof:"
PREVIOUS = "previous"


def stage(document):
    """Stage a generation beside the one that runs, if HAProxy finds it valid. Touches no service.

    ``document``: folder of all generations; generation, the id of this one; files, name -> text;
    asker, the current operator, see locks.py. Raises HostError, also while another rollout holds
    this host.
    """
    refuse_other_operator(document.get("asker"))
    root, new = Path(document["folder"]), document["generation"]
    with changing():
        # Only the switch writes files of the current one: HAProxy reads them where they are.
        if new != current(root):
            write_valid(document)
        forget_others(root, new)
    return {"generation": new}


def install(document):
    """Switch to a generation, and keep it if each alias that served still answers its clients.

    ``document``: as for ``stage``, and units, systemd's folder; helper, the path of this program;
    plan, the gateway's.
    """
    refuse_other_operator(document.get("asker"))
    with changing():
        rows = switched(document, lambda before: proof(document["plan"], before), keeps_old=True)
    return {"generation": document["generation"], "rows": rows}


def place(document):
    """Change the address of one server in the gateway, and nothing else.

    ``document``: folder, units, helper; server, and its lines as in corral_shared/gateway_lines.py.
    """
    with changing():
        root = Path(document["folder"])
        old = current(root)
        if old is None:
            return {"generation": None}
        files = {path.name: path.read_text() for path in (root / old).iterdir()}
        files[CONFIG] = with_lines(files[CONFIG], document["server"], document["lines"])
        new = renamed(document, old, files, lambda _: [])
    return {"generation": new}


def switched(document, prove, *, keeps_old=False):
    """Switch and prove; returns the rows of the proof. Raises HostError after a revert.

    ``keeps_old``: keep the previous generation for ``revert_change``.
    """
    root, new = Path(document["folder"]), document["generation"]
    old = proved(root)
    write_valid(document)
    before = serving_pools()
    mark(root, old)
    watch(document)
    try:
        switch(document, new)
        rows = prove(before)
        tell_old_workers()
    except HostError as fault:
        summary = revert(document, old)
        settled(root, old)
        raise HostError(f"{fault.what}\n{summary}", fault.next_step) from fault
    if keeps_old and old not in (None, new):
        point(root / PREVIOUS, old)
    settled(root, new)
    return rows


def write_valid(document):
    """Write a generation. Raises HostError, and removes it again, if HAProxy could not start it."""
    root, new = Path(document["folder"]), document["generation"]
    here = current(root)
    write(root / new, document["files"])
    try:
        output(HAPROXY, "-c", "-f", str(root / new / CONFIG))
        refuse_taken(listens(root / new) - (listens(root / here) if here else set()))
    except HostError:
        if new not in (here, proved(root)):
            shutil.rmtree(root / new)
        raise


def serving_pools():
    """Names of the pools that have a serving server now."""
    if running_generation() is None:
        return set()
    return {row["pool"] for row in servers().values() if serves(row)}


def proof(plan, before):
    """Rows for each alias that serves, or served before. Raises HostError if one fails."""
    rows = []
    for pool in plan["pools"]:
        known = probes.row(probes.members, plan, pool)
        if not known["ok"] and pool["name"] not in before:
            # Its servers are down with or without this gateway.
            continue
        checks = probes.models, probes.keys
        rows += [known, *(probes.row(check, plan, pool) for check in checks)]
    if failed := [one for one in rows if not one["ok"]]:
        lines = [f"{one['instance']}: {one['check']}: {one['detail']}" for one in failed]
        raise HostError("\n".join(lines))
    return rows


def mark(root, old):
    write_atomic(root / UNPROVED, json.dumps({"before": old}) + "\n", mode=0o600)


def proved(root):
    """The generation that was proved last, or None."""
    unproved = read_json(root / UNPROVED)
    return current(root) if unproved is None else unproved["before"]


def watch(document):
    """Arm the timer that reverts to the previous generation if this process dies."""
    question = {name: document[name] for name in ("folder", "units")}
    later(PROOF_UNIT, PROOF_SECONDS, document["helper"], "gateway-settle", question)


def revert_change(document):
    """Revert the last change of the gateway alone; servers keep their current addresses.

    ``document``: folder, units, helper; asker, as for ``stage``.
    """
    refuse_other_operator(document.get("asker"))
    with changing():
        root = Path(document["folder"])
        now, before = current(root), previous(root)
        if before is None:
            raise HostError("this gateway has no previous generation", "deploy it as it was")
        files = {path.name: path.read_text() for path in (root / before).iterdir()}
        files[CONFIG] = with_places(files[CONFIG], (root / now / CONFIG).read_text())
        new = renamed(document, before, files, lambda _: [])
    return {"generation": new}


def with_places(config, now):
    """A configuration with the addresses of its servers from another one, and its own weights."""
    shares = {(line["pool"], line["server"]): line["weight"] for line in server_lines(config)}
    for server in dict.fromkeys(base(line["server"]) for line in server_lines(now)):
        found = [
            {**line, "weight": shares.get((line["pool"], server), line["weight"])}
            for line in lines_of(now, server)
        ]
        config = with_lines(config, server, found)
    return config


def renamed(document, old, files, prove):
    """Switch to changed files of a generation, under an id of their own; returns that id."""
    new = digest({name: text.replace(old, "") for name, text in files.items()})
    named = {name: text.replace(old, new) for name, text in files.items()}
    if new != current(Path(document["folder"])):
        switched({**document, "generation": new, "files": named}, prove)
    return new


def settled(root, kept):
    """End a switch: what serves counts as proved; other generations are removed."""
    (root / UNPROVED).unlink(missing_ok=True)
    output("systemctl", "stop", f"{PROOF_UNIT}*.timer")
    forget_others(root, kept)


def settle(document):
    """Run by the timer: revert, unless the switch was settled."""
    with changing():
        root = Path(document["folder"])
        if not (root / UNPROVED).exists():
            return {"settled": "already"}
        old = proved(root)
        summary = revert(document, old)
        settled(root, old)
    return {"settled": summary}


def previous(root):
    """The generation from before the last change of the gateway alone, or None."""
    return linked(root, PREVIOUS)


def forget_others(root, kept):
    for folder in root.iterdir():
        used = (kept, current(root), proved(root), previous(root))
        if folder.is_dir() and not folder.is_symlink() and folder.name not in used:
            shutil.rmtree(folder)


def installed(document):
    """The installed generation: text of its configuration, and digests in place of secrets.

    ``document``: folder, units; digest_key, see server/key_digest.py.
    """
    root = Path(document["folder"])
    found = current(root)
    if found is None:
        return {"generation": None}
    key = document.get("digest_key")
    state, texts = gateway_state(document, document["units"], key), unnamed(root / found)
    return {
        "generation": found,
        "running": state["running"],
        "whole": state["installed"] == found,
        "config": texts[CONFIG],
        "files": {name: key_digest(text, key) for name, text in texts.items() if name != CONFIG},
        "upstream": state["upstream"],
    }
