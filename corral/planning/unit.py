"""The systemd unit of an instance: rendered here, and nowhere else."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from corral.catalog.profile import Profile
from corral.engines.base import UnitNeeds
from corral.paths import mount_units
from corral.plan.instance import Endpoint
from corral.plan.runtime import NATIVE, RuntimePlan
from corral.runtimes.base import Sandbox
from corral.schema import Frozen
from corral.templating import text_environment

_TEMPLATE = "corral-instance.service.j2"


class UnitValues(Frozen):
    """The values of the template.

    + prepare: command before the server's, or none
    + models_folder: folder of the inventory for weights, None for Corral's own
    + memory_policy: see ``memory_policy``
    + model: path that the server loads
    + clients: addresses that the server may talk to, None for all
    """

    host: str
    instance: str
    profile: str
    argv: tuple[str, ...]
    prepare: tuple[str, ...]
    key_path: str
    endpoint: Endpoint
    gpus: tuple[int | str, ...]
    host_gpus: int
    locks_memory: bool
    clients: tuple[str, ...] | None
    numa: str | None = None
    memory_policy: tuple[str, ...] = ()
    engine_environment: dict[str, str]
    needs: UnitNeeds
    sandbox: Sandbox = Sandbox()
    models_folder: str | None = None
    model: str = ""

    @property
    def wanted_by(self) -> tuple[str, ...]:
        """Units that start the server with them: the boot, and mounts that may hold its weights."""
        mounts = mount_units(self.models_folder) if self.models_folder else ()
        return ("multi-user.target", *mounts)

    @property
    def environment(self) -> dict[str, str]:
        """All environment variables of the server; ``%C`` is systemd's cache folder."""
        variables = dict(self.engine_environment)
        if self.needs.home_in_cache:
            variables["HOME"] = f"%C/corral-{self.instance}"
        if self.gpus:
            # The numbers of nvidia-smi; CUDA itself would put the fastest first.
            variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, self.gpus))
            variables["CUDA_CACHE_PATH"] = f"%C/corral-{self.instance}"
        return variables

    @property
    def program(self) -> str:
        """File name of the server's program."""
        return PurePosixPath(self.argv[0]).name

    @property
    def caches(self) -> bool:
        """Whether it has a cache folder."""
        return bool(self.gpus) or self.needs.home_in_cache

    @property
    def executable_memory(self) -> bool:
        """Whether it may write machine code to memory and run it."""
        return self.needs.executable_memory_on_cpu and not self.gpus

    @property
    def system_calls(self) -> tuple[str, ...]:
        """System calls that it may use beside the common ones."""
        cpu = () if self.gpus else self.needs.cpu_system_calls
        # By which threads are put on cores.
        numa = ("sched_setaffinity",) if self.numa else ()
        return (*self.needs.system_calls, *cpu, *numa, *self.sandbox.system_calls)

    @property
    def address_families(self) -> tuple[str, ...]:
        """Kinds of sockets that it may open."""
        own = ("AF_UNIX",) if self.endpoint.socket else ("AF_UNIX", "AF_INET", "AF_INET6")
        return tuple(dict.fromkeys((*own, *self.needs.address_families)))

    @property
    def gpu_nodes(self) -> tuple[int, ...]:
        """Numbers of /dev/nvidia<N>; all of the host for UUIDs, which do not name a node."""
        by_index = tuple(gpu for gpu in self.gpus if isinstance(gpu, int))
        return by_index if len(by_index) == len(self.gpus) else tuple(range(self.host_gpus))


def render_unit(
    values: UnitValues, *, generation: str, templates: Path, runtime: RuntimePlan = NATIVE
) -> str:
    """The text of the unit file; arguments are escaped for systemd here, once."""
    environment = text_environment(templates)
    before, prepare = runtime.command, values.prepare
    texts = {
        "command": _joined((*before, *values.argv)),
        "prepare": _joined((*before, *prepare)) if prepare else "",
        "model": values.model.replace("%", "%%"),
        # A container gets its variables by arguments.
        "variables": {} if before else values.environment,
    }
    return environment.get_template(_TEMPLATE).render(v=values, generation=generation, **texts)


def memory_policy(profile: Profile) -> tuple[str, ...]:
    """Settings of a unit for memory of NUMA nodes, as numactl(8) in front of the server would."""
    policy = profile.numa_memory
    if policy is None:
        return ()
    mask = () if policy == "local" else (f"NUMAMask={profile.numa_nodes}",)
    cores = ("CPUAffinity=numa",) if policy == "bind" else ()
    return (f"NUMAPolicy={policy}", *mask, *cores)


def _joined(argv: tuple[str, ...]) -> str:
    return " \\\n    ".join(_lines(argv))


def _lines(argv: tuple[str, ...]) -> list[str]:
    """One line for each flag with its value, for readability."""
    lines: list[str] = []
    for argument in map(escape, argv):
        if (
            lines
            and not argument.startswith("--")
            and lines[-1].startswith("--")
            and " " not in lines[-1]
        ):
            lines[-1] += f" {argument}"
        else:
            lines.append(argument)
    return lines


def escape(argument: str) -> str:
    """Quote one argument for ExecStart= (systemd.service(5), "Command lines")."""
    text = argument.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    text = text.replace("\n", "\\n").replace("\t", "\\t")
    plain = text and not any(c in text for c in " '\"\\;") and text == argument
    return text if plain else f'"{text}"'
