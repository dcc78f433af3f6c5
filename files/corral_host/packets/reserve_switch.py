"""Reserved ports while an instance switches: of both generations, then of the one that serves.

A deploy reserves what its plan says. A revert goes where no plan of today puts the server.
"""

import re
from pathlib import Path

from corral_host.packets.reserve import file_in, lay, ports_of, served_here
from corral_host.system.commands import write_atomic

PORTS = re.compile(r"(chain answers \{.*?tcp sport != \{ )([\d, ]+)( \})", re.DOTALL)


def unreserved(task):
    """Ports of the new generation that are not reserved yet: those of a staged one are."""
    return sorted(ports_of(task["after"]) - laid(rules_of(task)))


def hold(task):
    """Reserve them, before it listens."""
    change(task, add=set(task["reserves"]))


def let_go(task, kept):
    """What only the other generation needs: the old one's ports, or those that `hold` reserved."""
    before = ports_of(task["before"]) if task["before"] else set()
    after = ports_of(task["after"])
    gone, stays = (before, after) if kept else (set(task.get("reserves", ())), before)
    change(task, drop=gone - stays - served_here(Path(task["folder"]).parent))


def change(task, add=frozenset(), drop=frozenset()):
    """Nothing where no server has rules; the last ones go with a deploy."""
    text = rules_of(task)
    wanted = (laid(text) | add) - drop
    if laid(text) and wanted and laid(text) != wanted:
        numbers = ", ".join(map(str, sorted(wanted)))
        text = PORTS.sub(rf"\g<1>{numbers}\g<3>", text, count=1)
        write_atomic(file_in(task["keys"]), text, mode=0o600)
        lay(text)


def rules_of(task):
    """The text of all reserved ports; empty where there is none, or nobody says where."""
    file = task.get("keys") and file_in(task["keys"])
    return file.read_text() if file and file.exists() else ""


def laid(text):
    """The ports of servers in it."""
    found = PORTS.search(text)
    return {int(number) for number in found[2].split(",")} if found else set()
