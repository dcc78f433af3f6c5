"""Reserved ports while an instance switches: of both generations, then of the one that serves.

A deploy reserves what its plan says. A revert goes where no plan of today puts the server.
"""

import re
from pathlib import Path

from corral_host.packets.reserve import file_in, lay, ports_of, served_here
from corral_host.system.commands import write_atomic

PORTS = re.compile(r"(chain answers \{.*?tcp sport != \{ )([\d, ]+)( \})", re.DOTALL)


def hold(task):
    """The ports of the new generation, before it listens."""
    change(task, add=ports_of(task["after"]))


def let_go(task):
    """Those that only the old generation had, once the new one is kept."""
    if task["before"]:
        own = ports_of(task["after"]) | served_here(Path(task["folder"]).parent)
        change(task, drop=ports_of(task["before"]) - own)


def change(task, add=frozenset(), drop=frozenset()):
    """Nothing on a host that takes no packet rules, or an activation of before this version."""
    file = task.get("keys") and file_in(task["keys"])
    text = file.read_text() if file and file.exists() else ""
    if found := PORTS.search(text):
        laid = {int(number) for number in found[2].split(",")}
        wanted = ", ".join(map(str, sorted((laid | add) - drop)))
        if wanted != found[2]:
            text = PORTS.sub(rf"\g<1>{wanted}\g<3>", text, count=1)
            write_atomic(file, text, mode=0o600)
            lay(text)
