"""Finish a release: prove it, write manifest and receipt, and install it by one rename."""

import hashlib
import json
import os
import time
from pathlib import Path

from corral_host.nvidia import nvidia_smi
from corral_host.release import programs
from corral_host.release.libraries import prove_self_contained
from corral_host.release.programs import bare_environment
from corral_host.release.releases import MANIFEST, RECEIPT
from corral_host.release.smoke import smoke
from corral_host.runtimes import images
from corral_host.system.commands import HostError, read_json, say, sha256_of, write_atomic
from corral_host.system.folders import put_in_place, sync_all
from corral_host.system.modes import open_release

PLANNED = ("engine", "kind", "key", "commit", "backend")
# Kinds of artifact whose libraries are all in the release's own folder or on any host. Wheels keep
# theirs wherever their authors put them.
SELF_CONTAINED = ("cmake-build",)

# Of a Python environment; a digest of the first is there, and what is installed.
TEXTS = ("requirements", "installer")


def manifest_of(release):
    return read_json(Path(release["folder"]) / MANIFEST)


def prove(release, staging, toolkit=()):
    """Prove that a release uses its own libraries, has its commit, finds GPUs and answers.

    Returns what goes into the receipt. Raises HostError with what is wrong.
    """
    open_release(staging)
    with bare_environment(toolkit, release) as environment:
        if release["artifact"]["kind"] in SELF_CONTAINED:
            prove_self_contained(staging, environment["HOME"])
        programs.prove_version(release, staging, environment)
        say("smoke run with a tiny model")
        summary, log = smoke(release, staging, environment)
        devices = devices_of(release, staging, environment, log)
    say(f"smoke run: {summary}")
    return {"smoke": summary, "devices": devices}


def devices_of(release, staging, environment, log):
    """GPUs that the back end finds. Raises HostError if the host has one and it finds none."""
    if release["backend"] != "cuda":
        return []
    if not nvidia_smi.ask()["gpus"]:
        say("no GPU here: whether the back end finds one is proved on the hosts that have them")
        return []
    found = programs.devices(release, staging, environment, log)
    if not found:
        raise HostError(
            f"{release['engine']}: nvidia-smi lists GPUs, the server's CUDA back end finds none; "
            "its log:\n" + "\n".join(log.splitlines()[:20]),
            "`corral plan` says whether driver and toolkit fit",
        )
    return found


def manifest(release, staging, **rest):
    files = contents(staging)
    return {
        **{name: release[name] for name in PLANNED},
        **described(release["artifact"]),
        "files": files,
        "size_bytes": sum(file["size_bytes"] for file in files.values()),
        "builder": os.uname().nodename,
        **rest,
    }


def described(artifact):
    """The artifact for the manifest, with digests instead of long texts."""
    found = {"artifact": artifact["kind"], **artifact}
    for name in ("kind", *TEXTS):
        found.pop(name, None)
    if "of" in artifact:
        found["of"] = {"key": artifact["of"]["key"], **described(artifact["of"]["artifact"])}
    if "patches" in artifact:
        found["patches"] = [
            {"name": p["name"], "sha256": hashlib.sha256(p["text"].encode()).hexdigest()}
            for p in artifact["patches"]
        ]
    return found


def contents(folder):
    """Every file of a release: size and digest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    beside = (MANIFEST, RECEIPT)
    named = {str(path.relative_to(folder)): path for path in paths}
    return {name: describe(path) for name, path in named.items() if name not in beside}


def describe(path):
    return {"size_bytes": path.stat().st_size, "sha256": sha256_of(path)}


def check_contents(folder, manifest):
    """Raises HostError unless the folder has exactly the manifest's files."""
    found, wanted = contents(folder), manifest["files"]
    wrong = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if wrong:
        raise HostError(
            f"{manifest['engine']} {manifest['key']}: files differ from its manifest: "
            f"{', '.join(wrong)}"
        )


def finish(release, staging, found, receipt):
    """Write manifest and receipt, then rename; before that the release does not exist."""
    write_json(staging / MANIFEST, found)
    image = release["artifact"].get("image")
    marked = {images.FIELD: images.mark(staging / image)} if image else {}
    write_json(staging / RECEIPT, {"installed_at": now(), **receipt, **marked})
    sync_all(staging)
    put_in_place(staging, Path(release["folder"]))
    say(f"installed {release['folder']}")


def write_json(path, document):
    write_atomic(path, json.dumps(document, indent=2, sort_keys=True) + "\n")


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
