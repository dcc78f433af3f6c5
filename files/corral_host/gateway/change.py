"""Change a gateway: validated, switched to, proved as a client sees it, or reverted.

A generation that nobody has proved yet is marked as such. A timer of systemd's puts the one from
before back when whoever switched does not come to the end.
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
    back,
    current,
    digest,
    gateway_state,
    linked,
    listens,
    refuse_taken,
    sha256,
    switch,
    unnamed,
    write,
)
from corral_host.gateway.socket import running_generation, servers
from corral_host.system.commands import HostError, output, point, read_json, write_atomic
from corral_host.system.locks import refuse_other_asker

# Longer than a switch, its proof and a switch back take.
PROOF_SECONDS = 180
PROOF_UNIT = "corral-gateway-proof:"
PREVIOUS = "previous"


def stage(document):
    """Put a generation beside the one that runs, once HAProxy finds it valid. Touches no service.

    ``document``: folder of all generations; generation, the id of this one; files, name -> text;
    asker, see locks.py. Raises HostError, also while somebody else's rollout holds this host.
    """
    refuse_other_asker(document.get("asker"))
    root, new = Path(document["folder"]), document["generation"]
    with changing():
        # Files of the one that runs, edited or not, are for the switch: HAProxy reads them there.
        if new != current(root):
            written(document)
        forget_others(root, new)
    return {"generation": new}


def install(document):
    """Switch to a generation, and keep it if each alias that served answers its clients.

    ``document``: as for ``stage``, and units, systemd's folder; helper, this one as installed;
    plan: the gateway's
    """
    refuse_other_asker(document.get("asker"))
    with changing():
        rows = switched(document, lambda before: proof(document["plan"], before), keeps_old=True)
    return {"generation": document["generation"], "rows": rows}


def place(document):
    """Change where the gateway looks for one server, and nothing else.

    ``document``: folder, units, helper; server, and its lines as in corral_shared/gateway_lines.py
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
    """Rows of the proof. Raises HostError when what was there before serves again.

    ``keeps_old``: for ``revert_change``
    """
    root, new = Path(document["folder"]), document["generation"]
    old = proved(root)
    written(document)
    before = serving_pools()
    mark(root, old)
    watch(document)
    try:
        switch(document, new)
        rows = prove(before)
    except HostError as fault:
        told = back(document, old)
        settled(root, old)
        raise HostError(f"{fault.what}\n{told}", fault.next_step) from fault
    if keeps_old and old not in (None, new):
        point(root / PREVIOUS, old)
    settled(root, new)
    return rows


def written(document):
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
    """Names of the pools that answer now."""
    if running_generation() is None:
        return set()
    return {row["pool"] for row in servers().values() if serves(row)}


def proof(plan, before):
    """Checks of each alias that serves, or did before. Raises HostError for one that fails."""
    rows = []
    for pool in plan["pools"]:
        known = probes.row(probes.members, plan, pool)
        if not known["ok"] and pool["name"] not in before:
            # Its servers are down with or without this gateway.
            continue
        checks = probes.models, probes.keys
        rows += [known, *(probes.row(check, plan, pool) for check in checks)]
    if failed := [one for one in rows if not one["ok"]]:
        told = "\n".join(f"{one['instance']}: {one['check']}: {one['detail']}" for one in failed)
        raise HostError(told)
    return rows


def mark(root, old):
    write_atomic(root / UNPROVED, json.dumps({"before": old}) + "\n", mode=0o600)


def proved(root):
    """The generation that was proved last, or None."""
    unproved = read_json(root / UNPROVED)
    return current(root) if unproved is None else unproved["before"]


def watch(document):
    """Whoever dies now, the generation from before comes back."""
    question = {name: document[name] for name in ("folder", "units")}
    later(PROOF_UNIT, PROOF_SECONDS, document["helper"], "gateway-settle", question)


def revert_change(document):
    """What a change of the gateway alone changed; servers stay where they are by now.

    ``document``: folder, units, helper; asker, as for ``stage``
    """
    refuse_other_asker(document.get("asker"))
    with changing():
        root = Path(document["folder"])
        now, before = current(root), previous(root)
        if before is None:
            raise HostError("this gateway keeps no generation before", "deploy it as it was")
        files = {path.name: path.read_text() for path in (root / before).iterdir()}
        files[CONFIG] = with_places(files[CONFIG], (root / now / CONFIG).read_text())
        new = renamed(document, before, files, lambda _: [])
    return {"generation": new}


def with_places(config, now):
    """A configuration with its servers where another one has them; shares are its own."""
    shares = {(line["pool"], line["server"]): line["weight"] for line in server_lines(config)}
    for server in dict.fromkeys(base(line["server"]) for line in server_lines(now)):
        found = [
            {**line, "weight": shares.get((line["pool"], server), line["weight"])}
            for line in lines_of(now, server)
        ]
        config = with_lines(config, server, found)
    return config


def renamed(document, old, files, prove):
    """Switch to files that were made of a generation's; they have an id of their own."""
    new = digest({name: text.replace(old, "") for name, text in files.items()})
    named = {name: text.replace(old, new) for name, text in files.items()}
    if new != current(Path(document["folder"])):
        switched({**document, "generation": new, "files": named}, prove)
    return new


def settled(root, kept):
    """The end of a switch: what serves is proved, and nothing else is kept."""
    (root / UNPROVED).unlink(missing_ok=True)
    output("systemctl", "stop", f"{PROOF_UNIT}*.timer")
    forget_others(root, kept)


def settle(document):
    """The timer's part: back, unless whoever switched came to the end."""
    with changing():
        root = Path(document["folder"])
        if not (root / UNPROVED).exists():
            return {"settled": "already"}
        old = proved(root)
        told = back(document, old)
        settled(root, old)
    return {"settled": told}


def previous(root):
    """The generation before the last change of the gateway alone, or None."""
    return linked(root, PREVIOUS)


def forget_others(root, kept):
    for folder in root.iterdir():
        used = (kept, current(root), proved(root), previous(root))
        if folder.is_dir() and not folder.is_symlink() and folder.name not in used:
            shutil.rmtree(folder)


def installed(document):
    """What is there, without its secrets: digests of them, and the text of the configuration."""
    root = Path(document["folder"])
    found = current(root)
    if found is None:
        return {"generation": None}
    state, texts = gateway_state(document, document["units"]), unnamed(root / found)
    return {
        "generation": found,
        "running": state["running"],
        "whole": state["installed"] == found,
        "config": texts[CONFIG],
        "files": {name: sha256(text) for name, text in texts.items() if name != CONFIG},
        "upstream": state["upstream"],
    }
