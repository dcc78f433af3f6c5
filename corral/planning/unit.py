"""The systemd unit of an instance: rendered here, and nowhere else."""

from __future__ import annotations

from pathlib import Path

from corral.engines.base import UnitNeeds
from corral.plan.instance import Endpoint
from corral.schema import Frozen
from corral.templating import text_environment

_TEMPLATE = "corral-instance.service.j2"


class UnitValues(Frozen):
    """The values of the template."""

    host: str
    instance: str
    profile: str
    argv: tuple[str, ...]
    key_path: str
    endpoint: Endpoint
    gpus: tuple[int | str, ...]
    host_gpus: int
    locks_memory: bool
    open_to_network: bool
    engine_environment: dict[str, str]
    needs: UnitNeeds

    @property
    def environment(self) -> dict[str, str]:
        """All environment variables of the server; ``%C`` is systemd's cache folder."""
        variables = dict(self.engine_environment)
        if self.gpus:
            # The numbers of nvidia-smi; CUDA itself would put the fastest first.
            variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, self.gpus))
            variables["CUDA_CACHE_PATH"] = f"%C/corral-{self.instance}"
        return variables

    @property
    def gpu_nodes(self) -> tuple[int, ...]:
        """Numbers of /dev/nvidia<N>; all of the host for UUIDs, which do not name a node."""
        by_index = tuple(gpu for gpu in self.gpus if isinstance(gpu, int))
        return by_index if len(by_index) == len(self.gpus) else tuple(range(self.host_gpus))


def render_unit(values: UnitValues, *, generation: str, templates: Path) -> str:
    """The text of the unit file; arguments are escaped for systemd here, once."""
    environment = text_environment(templates)
    command = " \\\n    ".join(_lines(values.argv))
    return environment.get_template(_TEMPLATE).render(
        v=values, generation=generation, command=command
    )


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
