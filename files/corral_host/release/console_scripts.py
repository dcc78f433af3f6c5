"""Console scripts of a Python environment: a small file in ``bin`` for each.

The entry_points.txt of a package lists them (packaging.python.org, "Entry points specification").
"""

import configparser
import re

from corral_shared.names import file_name_problem
from corral_shared.text import printable_line

from corral_host.system.commands import HostError, say

# Runs the interpreter beside the script, wherever the release is: an exec for sh, a string for
# Python.
RELEASES_PYTHON = b"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")/python" "$0" "$@"
' '''
"""
PROGRAM = """import sys

from {module} import {imported}

if __name__ == "__main__":
    sys.exit({called}())
"""
GROUP = "console_scripts"
# ``module:object``; extras after it have no effect on the script.
TARGET = re.compile(r"^([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)(\s*\[.*\])?$", re.ASCII)
MOST_BYTES = 1024**2


def write_console_scripts(release, packages, folder):
    """Write the console scripts of all packages. Raises HostError."""
    for path in sorted(packages.glob("*.dist-info/entry_points.txt")):
        for name, target in console_scripts(release, path).items():
            write_script(release, path, folder, name, target)


def console_scripts(release, path):
    """Name -> ``module:object``."""
    if path.stat().st_size > MOST_BYTES:
        raise refused(release, path, "is larger than any")
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (configparser.Error, UnicodeDecodeError) as fault:
        raise refused(release, path, f"is not readable: {printable_line(fault)}") from fault
    return dict(parser[GROUP]) if parser.has_section(GROUP) else {}


def write_script(release, path, folder, name, target):
    found = TARGET.match(target)
    shown = printable_line(f"{name} = {target}")
    if file_name_problem(name) or not found:
        raise refused(release, path, f"has {shown!r}, which is no program")
    module, called = found[1], found[2]
    text = PROGRAM.format(module=module, imported=called.partition(".")[0], called=called)
    try:
        with open(folder / name, "xb") as file:
            file.write(RELEASES_PYTHON + text.encode())
    except FileExistsError:
        # fastapi and fastapi-cli both have a script called fastapi; the first one is kept.
        say(f"{path.parent.name}: {name} exists already and is kept")


def refused(release, path, why):
    return HostError(
        f"{release['engine']}: {path.parent.name}/{path.name} {why}. Nothing was installed",
        "check the engine's wheels in the catalog, then run the deploy again",
    )
