"""The systemd unit of an instance: rendered here, and nowhere else."""

from __future__ import annotations

from pathlib import Path

from corral.engines.base import UnitNeeds
from corral.plan.instance import Endpoint
from corral.schema import Frozen
from corral.templating import text_environment

_TEMPLATE = "corral-instance.service.j2"


class UnitValues(Frozen):
    """What the template places."""

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
        """Variables of the server, and no others; ``%C`` is systemd's folder of caches."""
        found = dict(self.engine_environment)
        if self.gpus:
            # The numbers of nvidia-smi; CUDA itself would put the fastest first.
            found["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            found["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, self.gpus))
            found["CUDA_CACHE_PATH"] = f"%C/corral-{self.instance}"
        return found

    @property
    def gpu_nodes(self) -> tuple[int, ...]:
        """Numbers of /dev/nvidia<N>; a uuid does not tell which node is its own."""
        by_index = tuple(gpu for gpu in self.gpus if isinstance(gpu, int))
        return by_index if len(by_index) == len(self.gpus) else tuple(range(self.host_gpus))


def render_unit(values: UnitValues, *, generation: str, templates: Path) -> str:
    """The text of the unit file; arguments are escaped for systemd once, here."""
    environment = text_environment(templates)
    command = " \\\n    ".join(_words(values.argv))
    return environment.get_template(_TEMPLATE).render(
        v=values, generation=generation, command=command
    )


def _words(argv: tuple[str, ...]) -> list[str]:
    """One line for each flag with its value, as a person would lay it out."""
    lines: list[str] = []
    for word in map(escape, argv):
        if (
            lines
            and not word.startswith("--")
            and lines[-1].startswith("--")
            and " " not in lines[-1]
        ):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def escape(word: str) -> str:
    """Quote one argument for ExecStart= (systemd.service(5), "Command lines")."""
    text = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    text = text.replace("\n", "\\n").replace("\t", "\\t")
    plain = text and not any(c in text for c in " '\"\\;") and text == word
    return text if plain else f'"{text}"'
