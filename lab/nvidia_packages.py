"""Stand-ins for NVIDIA's packages: their names and versions, and a driver that a reboot changes."""

from __future__ import annotations

from lab.gpus import MODULE_FILE, UVM_FILE, File, module, nvidia_smi
from lab.package_repository import DebPackage

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_SHIPPED = "usr/share/corral-lab/module"
# A loaded module stays until the reboot; without one, the new module is loaded at once.
_LOAD = f"""#!/bin/sh
set -e
mkdir -p $(dirname /{MODULE_FILE}) $(dirname /{UVM_FILE})
[ -e /{MODULE_FILE} ] || cp /{_SHIPPED} /{MODULE_FILE}
touch /{UVM_FILE}
systemctl enable lab-nvidia-module.service
"""
_AT_BOOT = f"""[Unit]
Description=Load the installed NVIDIA module
Before=sshd.service ssh.service

[Service]
Type=oneshot
ExecStart=cp /{_SHIPPED} /{MODULE_FILE}

[Install]
WantedBy=multi-user.target
"""
_PERSISTENCED = """[Unit]
Description=NVIDIA Persistence Daemon

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=mkdir -p /run/nvidia-persistenced

[Install]
WantedBy=multi-user.target
"""


def driver(version: str) -> list[DebPackage]:
    """nvidia-open of one version, with its library, its tool and its daemon."""
    full = f"{version}-1"
    source = {"Source": "nvidia-graphics-drivers"}
    library = f"{_LIBRARIES}/libnvidia-ml.so"
    wants = f"libnvidia-ml1 (= {full}), nvidia-persistenced (= {full})"
    return [
        DebPackage(
            "libnvidia-ml1", full, source,
            files=(File(f"{library}.{version}", ""), nvidia_smi("usr/bin/nvidia-smi")),
            links={f"{library}.1": f"libnvidia-ml.so.{version}"},
        ),
        DebPackage(
            "nvidia-persistenced", full, source,
            files=(File("usr/lib/systemd/system/nvidia-persistenced.service", _PERSISTENCED),),
        ),
        DebPackage(
            "nvidia-open", full, {**source, "Depends": wants},
            files=(
                File(_SHIPPED, module(version)[0].text),
                File("usr/lib/systemd/system/lab-nvidia-module.service", _AT_BOOT),
            ),
            scripts={"postinst": _LOAD},
        ),
    ]  # fmt: skip


def toolkit(release: str) -> DebPackage:
    """cuda-toolkit-12-8 for 12.8; its nvcc prints its release and compiles nothing."""
    folder = f"usr/local/cuda-{release}"
    said = f"Cuda compilation tools, release {release}, V{release}.93"
    return DebPackage(
        f"cuda-toolkit-{release.replace('.', '-')}",
        f"{release}.1-1",
        files=(File(f"{folder}/bin/nvcc", f"#!/bin/sh\necho '{said}'\n", 0o755),),
        links={"usr/local/cuda": f"cuda-{release}"},
    )
