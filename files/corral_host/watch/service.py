"""The service that watches servers: its unit and its settings. It runs where a plan needs it."""

import json
import shutil
import sys
from pathlib import Path

from corral_host.instance.unit_file import ENABLED, unit_file_state
from corral_host.system.commands import output, quiet, show, write_atomic

# No instance can have a unit (corral-NAME) of this name.
NAME = "watched-by-corral"
UNIT = f"{NAME}.service"
SERVICE = """\
# Written by Corral: restarts a server that serves from host memory instead of its GPUs, or that
# hangs. Its settings are in {settings}.
[Unit]
Description=Corral: watches the servers of this host
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={python} -I {helper} watch {settings}
# It ends when its program or its settings change, and starts again with the new ones.
Restart=always
RestartSec=5
RuntimeDirectory={name}
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=yes
LimitCORE=0

[Install]
WantedBy=multi-user.target
"""


def settings(plan):
    """What to watch: instances with GPUs, and those whose plan asks for completions."""
    watched = {
        one["name"]: {"folder": one["folder"], "watchdog": one.get("watchdog")}
        for one in plan["instances"]
        if one["gpus"] or one.get("watchdog")
    }
    paths = plan["paths"]
    return {"instances": watched, "state": paths["state"], "records": str(records(paths))}


def records(paths):
    """The folder of what the service found and did, by instance; gone after a reboot."""
    return Path(paths.get("sockets", "/run")) / NAME


def texts(plan):
    """Path -> text of the files of the service."""
    file = Path(plan["paths"]["keys"]).parent / "watch.json"
    unit = SERVICE.format(
        name=NAME, settings=file, helper=plan["paths"]["helper"], python=sys.executable
    )
    return {
        file: json.dumps(settings(plan), indent=1, sort_keys=True) + "\n",
        Path(plan["paths"]["units"]) / UNIT: unit,
    }


def is_watched(plan):
    """Whether the service runs as planned, now and after a boot; or is absent, as planned."""
    written = {path: path.read_text() if path.exists() else None for path in texts(plan)}
    if not settings(plan)["instances"]:
        return not any(written.values())
    runs = show(UNIT, "ActiveState")["ActiveState"] in ("active", "activating")
    return written == texts(plan) and runs and unit_file_state(UNIT) == ENABLED


def install(plan):
    """Write the service and start it, or remove it; returns the names of watched instances."""
    names = sorted(settings(plan)["instances"])
    if not names:
        quiet("disable", "--quiet", "--now", UNIT)
        # Nobody would clear what it found.
        shutil.rmtree(records(plan["paths"]), ignore_errors=True)
    for path, text in texts(plan).items():
        if names:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text)
        else:
            path.unlink(missing_ok=True)
    output("systemctl", "daemon-reload")
    if names:
        output("systemctl", "enable", "--quiet", UNIT)
        output("systemctl", "restart", UNIT)
    return {"watched": names}
