"""Print what a lab host serves, and leftovers on it, as JSON: `look.py UNIT FOLDER`.

It uses none of Corral's code, whose mistakes could otherwise hide themselves.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

UNITS = Path("/etc/systemd/system")
NFT = Path("/usr/sbin/nft")


def output(*command: str | Path) -> str:
    """Standard output with any exit code: pgrep's is 1 if nothing matches."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def text_of(path: Path) -> str:
    """Text of a file; "" if it does not exist."""
    return path.read_text() if path.exists() else ""


def newest_report(folder: Path) -> Any:
    """The newest report of the instance's history; None without one."""
    found = sorted(folder.glob("history/*.json"))
    return json.loads(found[-1].read_text()) if found else None


def main(unit: str, folder: Path) -> dict[str, Any]:
    """Everything that the rule needs."""
    pid = output("systemctl", "show", unit, "--value", "--property=MainPID").strip()
    units = output("systemctl", "list-units", "--all", "--plain", "--no-legend", "corral-*")
    found = re.search(r"^X-Corral-Generation=(\w+)$", text_of(UNITS / unit), re.MULTILINE)
    tables = output(NFT, "list", "tables") if NFT.exists() else ""
    return {
        "generation": found and found.group(1),
        "argv": text_of(Path("/proc", pid, "cmdline")).split("\0")[:-1],
        "units": [line.split()[0] for line in units.splitlines()],
        "files": sorted(path.name for path in UNITS.iterdir() if "corral" in path.name),
        "tables": [line for line in tables.splitlines() if "corral" in line],
        "unfinished": (folder / "activating.json").exists(),
        "servers": len(output("pgrep", "-f", "^[^ ]*/llama-server ").split()),
        "report": newest_report(folder),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
