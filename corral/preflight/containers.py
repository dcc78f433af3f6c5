"""The checks of preflight for instances that run in images. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from corral.findings import Finding
from corral.host.state import ContainerProgram, Containers, HostState
from corral.plan.host import HostPlan
from corral.runtimes import program_kind

# The first with all options that units use (--unsquash, --no-eval's default; --tmp-sandbox, and
# squashfuse in a user namespace).
_OLDEST = {"apptainer": (1, 2), "singularity": (4, 1)}
_INSTALL = {
    "debian-13": "install apptainer from Debian sid, pinned so that nothing else comes from there "
    "(docs/runbooks/apptainer.md), or the .deb of github.com/apptainer/apptainer/releases",
    "ubuntu-24.04": "`add-apt-repository ppa:apptainer/ppa && apt-get install apptainer`",
}
_INSTALL_ELSEWHERE = "install the .deb of github.com/apptainer/apptainer/releases"


def container_findings(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    """What stops the images of a plan; nothing for a plan without images."""
    images = [one for one in plan.instances if one.runtime.image]
    if not images or state.containers is None:
        return
    found, program = state.containers, images[0].runtime.program
    here = found.programs.get(program)
    if here is None:
        yield _missing(plan, found, program)
        return
    if here.kind != program_kind(program):
        yield _other_kind(program, here)
        return
    if _number(here.version) < _OLDEST[here.kind]:
        oldest = ".".join(map(str, _OLDEST[here.kind]))
        yield Finding(
            what=f"{program} {here.version or 'of an unknown version'} is too old for images",
            next_step=f"install {here.kind} {oldest} or later on the host",
        )
    if found.user_namespaces:
        yield _namespaces(found, program, setuid=here.setuid)
    if not found.fuse and not all(one.runtime.unpacks for one in images):
        yield Finding(
            what="/dev/fuse is missing, so images cannot be mounted",
            next_step="`modprobe fuse` on the host, or set "
            '"unpack_images": True for it, which unpacks an image at each start',
        )


def _missing(plan: HostPlan, found: Containers, program: str) -> Finding:
    other = next((name for name in found.programs if name != program), None)
    if other:
        step = f'set "container_program": "{other}" in the data of the host'
        return Finding(what=f"{program} is missing, {other} is there", next_step=step)
    what = "neither apptainer nor singularity is there, and instances run in images"
    return Finding(what=what, next_step=_INSTALL.get(plan.platform, _INSTALL_ELSEWHERE))


def _other_kind(program: str, here: ContainerProgram) -> Finding:
    """Options differ, and a plan knows a program by its name alone."""
    step = f'set "container_program" of the host to a path of it that ends with /{here.kind}'
    if here.kind == "apptainer":
        step = 'set "container_program": "apptainer" in the data of the host'
    return Finding(what=f"{program} is {here.kind} {here.version} there", next_step=step)


def _namespaces(found: Containers, program: str, *, setuid: bool) -> Finding:
    setting = found.user_namespaces
    what = f"{program} cannot have a user namespace ({setting}), which a unit's sandbox needs"
    if setuid:
        what += "; its setuid starter does not help, as units have no new privileges"
    if setting.startswith("kernel.apparmor"):
        step = "install a package of apptainer that brings its AppArmor profile (the project's own)"
    elif setting == "user.max_user_namespaces":
        step = "`sysctl user.max_user_namespaces=65536` on the host, and in /etc/sysctl.d"
    else:
        step = f"`sysctl {setting}=1` on the host, and in /etc/sysctl.d"
    return Finding(what=what, next_step=step)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
