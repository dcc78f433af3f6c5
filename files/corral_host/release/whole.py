"""Whether a release is on this host as in its manifest, and runs on its processor."""

import os
import re
from pathlib import Path

from corral_host.runtimes.images import is_as_installed
from corral_host.system.commands import read_json


def release_is_whole(release):
    folder = Path(release["folder"])
    manifest = read_json(folder / "manifest.json")
    if not manifest or manifest["key"] != release["key"]:
        return False
    if release.get("native") and not suits_this_cpu(manifest):
        return False
    image = release.get("artifact", {}).get("image")
    if image and not is_as_installed(folder / image):
        return False
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry["size_bytes"]
        for name, entry in manifest["files"].items()
    )


def suits_this_cpu(manifest):
    """Whether this processor has every feature that a native build could use."""
    return set(manifest["found"]["cpu"]["flags"]) <= set(cpu()["flags"])


def cpu():
    """The processor's name and all its features."""
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return {
        "model": model.group(1) if model else os.uname().machine,
        "flags": sorted(flags.group(1).split()) if flags else [],
    }
