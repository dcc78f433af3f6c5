"""Reserved ports during a switch: of both generations, then of the one that serves.

A deploy reserves the ports of its plan. A revert may need a port that no current plan has.
"""

import re
from pathlib import Path

from corral_host.packets.reserve import file_in, lay, ports_of, served_here
from corral_host.system.commands import write_atomic

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
        numbers = ", ".join(map(str, sorted(wanted)))
        text = PORTS.sub(rf"\g<1>{numbers}\g<3>", text, count=1)
        write_atomic(file_in(activation.paths["keys"]), text, mode=0o600)
        lay(text)


def rules_of(activation):
    """The rules of all reserved ports; empty if there are none, or if their file is not known."""
    keys = activation.paths.get("keys")
    file = keys and file_in(keys)
    return file.read_text() if file and file.exists() else ""


def laid(text):
    """The ports of servers in the rules."""
    found = PORTS.search(text)
    return {int(number) for number in found[2].split(",")} if found else set()
