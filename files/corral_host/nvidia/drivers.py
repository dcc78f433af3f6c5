"""Install a pinned NVIDIA driver and CUDA toolkit, hold their packages, load the modules."""

import os
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

from corral_host.nvidia import gpu, nvidia_smi
from corral_host.nvidia.openpgp import MOST_BYTES, checked_key
from corral_host.system import kernel
from corral_host.system.commands import HostError, loud, output, say, show, write_atomic
from corral_host.system.kernel import run

OPTIONS = (
    "-o", "DPkg::Lock::Timeout=300",
    "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold",
)  # fmt: skip


def set_up(spec):
    """All steps before a reboot; safe to repeat after an interruption at any point."""
    for path, text in spec["files"].items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    if spec.get("apt_config"):
        # A bundle is the only source: for apt-get, apt-cache and apt-mark alike.
        os.environ["APT_CONFIG"] = spec["apt_config"]
    if spec["install"]:
        install(spec)
    hold(spec)
    if spec["load_modules"]:
        load_modules()
    if spec["persistence"]:
        persist()


def install(spec):
    source = spec["source"]
    # A bundle's packages are signed by its own key, which came with these files.
    if source and source["key_url"] and not spec.get("apt_config"):
        fetch_key(source["key_url"], source["key_fingerprint"], spec["keyring"])
    apt_get("update")
    names = [name for one in spec["install"] for name in one["packages"]]
    for one in spec["install"]:
        for name in one["packages"]:
            refuse_another(name, one["version"])
    # apt fails rather than change a held package that these depend on; `hold` holds them again.
    held = [name for name, found in driver_packages(spec).items() if found["held"]]
    if held:
        loud("apt-mark", "unhold", *held)
    # The pins choose the versions, also of what these depend on.
    apt_get("install", "--allow-downgrades", *names, *headers())


def apt_get(command, *arguments):
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    loud("apt-get", command, "-y", *OPTIONS, *arguments, env=environment)


def driver_packages(spec):
    return gpu.packages(spec["named"], gpu.library_version())


def fetch_key(url, wanted, target):
    """Fetch a repository's key with apt's helper, so that apt's proxy and certificates apply.

    It is kept if it has the wanted fingerprint. apt trusts whatever is in ``target``, so that gets
    the text made from the checked packets.
    """
    data = download(url)
    try:
        found, text = checked_key(data)
    except HostError as error:
        raise HostError(f"{url}: {error}") from error
    if found != wanted:
        raise HostError(
            f"{url} holds the key {found}, not {wanted}",
            "ask its publisher which is right; "
            "the pinned one is key_fingerprint in catalog/drivers/",
        )
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, text)


def download(url):
    """The bytes at an address, limited to more than any key has: an answer may be endless."""
    limited = ("prlimit", f"--fsize={MOST_BYTES}", "/usr/lib/apt/apt-helper")
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(folder) / "key"
        try:
            loud(*limited, "download-file", url, fetched)
        except HostError as error:
            raise HostError(
                f"{url}: {error} (a key has {MOST_BYTES} bytes at most)",
                "check that the host reaches it, then run the same deploy again",
            ) from error
        with open(fetched, "rb") as file:
            return file.read(MOST_BYTES + 1)


def refuse_another(name, pinned):
    """Raises HostError if apt would not install the pinned version, as no source has it."""
    lines = output("apt-cache", "policy", name).splitlines()
    pairs = [line.split() for line in lines]
    candidate = next((p[1] for p in pairs if len(p) == 2 and p[0] == "Candidate:"), "(none)")
    if not fnmatchcase(candidate.split(":")[-1], pinned):
        there = available(name)
        listed = f"versions {', '.join(there)}" if there else f"{candidate}, no version of it"
        raise HostError(
            f"{name} {pinned} is pinned, the host's package sources have {listed}",
            "pin a version that they have in catalog/drivers/, or correct the package sources",
        )


def available(name):
    """Versions of a package in the host's package sources, newest first."""
    rows = [line.split("|") for line in run("apt-cache", "madison", name).stdout.splitlines()]
    return list(dict.fromkeys(row[1].strip() for row in rows if len(row) == 3))


def headers():
    """The package of the running kernel's headers, without which no module is built for it."""
    name = f"linux-headers-{os.uname().release}"
    return [name] if run("apt-cache", "show", name).returncode == 0 else []


def hold(spec):
    """Hold every package of the driver: apt would otherwise upgrade them one by one."""
    loose = [name for name, found in driver_packages(spec).items() if not found["held"]]
    if loose:
        loud("apt-mark", "hold", *loose)


def load_modules():
    """Load the modules. If that fails a reboot does it, and the next check reports the need."""
    commands = [("modprobe", "nvidia"), ("modprobe", "nvidia-uvm")]
    # Makes /dev/nvidia-uvm, which the module alone does not.
    for command in [*commands, ("nvidia-modprobe", "-u", "-c", "0")]:
        done = run(*command)
        say(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


def persist():
    """Enable nvidia-persistenced if installed, and persistence mode, which Ubuntu's leaves off."""
    loaded = kernel.module()["module_version"] is not None
    if show(gpu.PERSISTENCED, "LoadState")["LoadState"] == "loaded":
        loud("systemctl", "enable", gpu.PERSISTENCED)
        if loaded:
            loud("systemctl", "start", gpu.PERSISTENCED)
    if loaded and not all(found["persistence"] for found in nvidia_smi.ask()["gpus"]):
        loud("nvidia-smi", "-pm", "1")
