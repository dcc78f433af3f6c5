"""Reserved ports during a switch: of both generations, then of the one that serves.

A deploy reserves the ports of its plan. A revert may need a port that no current plan has, and a
removed instance none.
"""

import re
from pathlib import Path

from corral_host.instance.stored_plan import NAME as PLAN
from corral_host.packets.reserve import UNIT, file_in, lay, ports_of, remove_rules, served_here
from corral_host.system.commands import HostError, read_json, say, write_atomic

CHAIN = re.compile(r"table [^\n]*\{\n    chain answers \{.*?\n    \}\n\}\n", re.DOTALL)
PORTS = re.compile(r"(chain answers \{.*?tcp sport != \{ )([\d, ]+)( \})", re.DOTALL)


def unreserved(activation):
    """Ports of the new generation that are not reserved yet; a deploy has reserved its own."""
    return sorted(ports_of(activation.plan) - laid(rules_of(activation)))


def hold(activation):
    """Reserve those ports before the server listens."""
    change(activation, add=set(activation.reserves))


def release_ports(activation, kept):
    """Release ports that the serving generation does not need.

    If the new one was kept these are the old one's, else those that `hold` reserved.
    """
    before = ports_of(activation.previous) if activation.previous else set()
    after = ports_of(activation.plan)
    gone, stays = (before, after) if kept else (set(activation.reserves), before)
    change(activation, drop=gone - stays - served_here(Path(activation.folder).parent))


def change(activation, add=frozenset(), drop=frozenset()):
    """Change the reserved ports of servers; without rules nothing is done.

    The last ports are released by a deploy only.
    """
    text = rules_of(activation)
    wanted = (laid(text) | add) - drop
    if laid(text) and wanted and laid(text) != wanted:
        replace(file_in(activation.paths["keys"]), with_ports(text, wanted))


def release_removed(paths, name):
    """Release the ports that, of all instances here, only ``name`` has; it has ended.

    A generation of another one that is only staged keeps its ports, too.
    """
    file, root = file_in(paths["keys"]), Path(paths["state"]) / "instances"
    text = text_of(file)
    others = set().union(*(known_ports(one) for one in root.glob("*") if one.name != name))
    left = laid(text) - (known_ports(root / name) - others)
    if left == laid(text):
        return
    try:
        if left:
            replace(file, with_ports(text, left))
        elif "chain" in (rest := CHAIN.sub("", text, count=1)):
            replace(file, rest)
        else:
            remove_rules([file, Path(paths["units"]) / UNIT])
    except HostError as fault:
        say(f"ports of {name} are still reserved, until the next deploy: {fault.what}")


def known_ports(folder):
    """Ports of all generations of an instance, by its folder."""
    plans = (read_json(path) for path in folder.glob(f"generations/*/{PLAN}"))
    return set().union(*(ports_of(plan) for plan in plans if plan))


def with_ports(text, numbers):
    """The rules with other ports of servers."""
    shown = ", ".join(map(str, sorted(numbers)))
    return PORTS.sub(rf"\g<1>{shown}\g<3>", text, count=1)


def replace(file, text):
    write_atomic(file, text, mode=0o600)
    lay(text)


def rules_of(activation):
    """The rules of all reserved ports; empty if there are none, or if their file is not known."""
    keys = activation.paths.get("keys")
    return text_of(file_in(keys)) if keys else ""


def text_of(file):
    return file.read_text() if file.exists() else ""


def laid(text):
    """The ports of servers in the rules."""
    found = PORTS.search(text)
    return {int(number) for number in found[2].split(",")} if found else set()
