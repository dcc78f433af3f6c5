"""Install a pinned NVIDIA driver and CUDA toolkit, hold their packages, load the modules."""

import os
from pathlib import Path

from corral_host.nvidia import gpu, nvidia_smi
from corral_host.system import kernel
from corral_host.system.apt import apt_get, fetch_key, refuse_another
from corral_host.system.commands import loud, say, show, write_atomic
from corral_host.system.kernel import run

# Where versions and keys are pinned.
CATALOG = "catalog/drivers/"


def set_up(spec):
    """All steps before a reboot; safe to repeat after an interruption at any point."""
    fetch_source_key(spec)
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


def fetch_source_key(spec):
    """Fetch the repository's key, before the file that adds the repository.

    Without the key apt takes no list of any repository, and each later deploy would end there. A
    bundle's packages are signed by its own key, which comes with its files.
    """
    source = spec["source"]
    if not source or not source["key_url"] or spec.get("apt_config"):
        return
    if spec["install"] or not Path(spec["keyring"]).exists():
        fetch_key(source["key_url"], source["key_fingerprint"], spec["keyring"], CATALOG)


def install(spec):
    apt_get("update")
    names = [name for one in spec["install"] for name in one["packages"]]
    for one in spec["install"]:
        for name in one["packages"]:
            refuse_another(name, one["version"], CATALOG)
    # apt fails rather than change a held package that these depend on; `hold` holds them again.
    held = [name for name, found in driver_packages(spec).items() if found["held"]]
    if held:
        loud("apt-mark", "unhold", *held)
    # The pins choose the versions, also of what these depend on.
    apt_get("install", "--allow-downgrades", *names, *headers())


def driver_packages(spec):
    return gpu.packages(spec["named"], gpu.library_version())


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
