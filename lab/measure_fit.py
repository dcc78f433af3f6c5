"""Compare predicted with held VRAM, and tokens/s of placements, on this machine's GPU.

    python -m lab.measure_fit --programs BUILD/bin --headers DIR [--vram-gib 40] > table.md

Serves header files extended with holes: weights are read as zeros, so speeds compare only with
each other. DIR has ``<model>.gguf-header.xz``; the sizes of the whole files are below.
"""

from __future__ import annotations

import lzma
import os
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from corral.catalog.entries import Catalog
from corral.catalog.profile import Profile
from corral.engines import resolve_placement
from corral.fit.estimate import DRIVER_MIB, MIB, estimate
from corral.fit.gguf import parse_header
from corral.fit.model import ModelFile, model_file
from corral.fit.place import place
from corral.plan.placement import ResolvedPlacement
from corral.planning.load import read_catalog
from corral.project import project_root
from lab.gpu_server import ANSWER_TOKENS, PROMPT_TOKENS, ask, serving, vram_mib

FILE_BYTES = {"GLM-4-32B-0414": 17_593_510_848, "GLM-4.5-Air": 82_572_049_696}
_RUNS = 3


@dataclass(frozen=True)
class Setting:
    """A shipped profile with some changes, on a header file."""

    model: str
    profile: str
    changes: dict[str, Any] = field(default_factory=dict)

    def name(self) -> str:
        return f"{self.profile}{', ' if self.changes else ''}" + ", ".join(
            f"{key} {value}" for key, value in self.changes.items()
        )


_Q8_0 = {"kv_type_k": "q8_0", "kv_type_v": "q8_0"}
SETTINGS = (
    Setting("GLM-4-32B-0414", "glm-z1-32b"),
    Setting("GLM-4-32B-0414", "glm-z1-32b", {"slots": 4, "ubatch_tokens": 2048}),
    Setting("GLM-4-32B-0414", "glm-z1-32b", {"gpu_layers": 40, **_Q8_0}),
    Setting("GLM-4.5-Air", "glm-4.5-air-realtime", {"placement": "gpu"}),
    Setting("GLM-4.5-Air", "glm-4.5-air-long-context", {"placement": "gpu"}),
    Setting("GLM-4.5-Air", "glm-4.5-air-experts-on-cpu"),
    Setting("GLM-4.5-Air", "glm-4.5-air-realtime"),
    Setting("GLM-4.5-Air", "glm-4.5-air-throughput"),
    Setting("GLM-4.5-Air", "glm-4.5-air-long-context"),
)


@dataclass(frozen=True)
class Measured:
    """One setting: MiB predicted and held after a prompt, tokens/s of prompt and answer."""

    setting: Setting
    placement: str
    predicted_mib: int
    held_mib: int
    prompt_speeds: tuple[float, ...]
    answer_speeds: tuple[float, ...]

    @property
    def error_percent(self) -> float:
        return 100 * (self.predicted_mib / self.held_mib - 1)


@click.command()
@click.option("--programs", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--headers", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--vram-gib", default=40, show_default=True, help="What placement auto may use.")
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
def main(programs: Path, headers: Path, vram_gib: int, threads: int) -> None:
    """Measure every setting and print the tables."""
    catalog = read_catalog(project_root())
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(catalog, programs, headers, Path(folder), vram_gib * 1024, threads)
        rows = []
        for setting in SETTINGS:
            rows.append(bench.measure(setting))
            click.echo(f"{setting.name()}: {rows[-1].held_mib} MiB held", err=True)
    click.echo("\n".join(report(rows, vram_gib)))


@dataclass(frozen=True)
class Bench:
    """What all settings share. ``budget_mib`` is the memory of the GPU that auto plans for."""

    catalog: Catalog
    programs: Path
    headers: Path
    folder: Path
    budget_mib: int
    threads: int

    def measure(self, setting: Setting) -> Measured:
        """Start the server with a deploy's arguments, send prompts, and read the VRAM it holds."""
        path, model = self._file(setting.model)
        profile = self._profile(setting)
        placement = self._placement(profile, model)
        found = estimate(model, profile, placement, gpu_memory_mib=[self.budget_mib])
        with serving(
            profile, placement, programs=self.programs, model=path, folder=self.folder
        ) as pid:
            prompt, answer = zip(*(ask() for _ in range(_RUNS)), strict=True)
            held_mib = vram_mib(pid)
        return Measured(
            setting=setting,
            placement=_format_placement(placement),
            predicted_mib=found.gpus[0].total_bytes // MIB,
            held_mib=held_mib,
            prompt_speeds=prompt,
            answer_speeds=answer,
        )

    def _file(self, name: str) -> tuple[Path, ModelFile]:
        path = self.folder / f"{name}.gguf"
        raw = lzma.decompress((self.headers / f"{name}.gguf-header.xz").read_bytes())
        if not path.exists():
            path.write_bytes(raw)
            os.truncate(path, FILE_BYTES[name])
        return path, model_file([parse_header(raw)])

    def _profile(self, setting: Setting) -> Profile:
        shipped = self.catalog.profile(setting.profile, where=setting.profile)
        changes = {**setting.changes, "threads": self.threads, "prompt_cache_mib": 0}
        return Profile.model_validate({**shipped.model_dump(), **changes})

    def _placement(self, profile: Profile, model: ModelFile) -> ResolvedPlacement:
        if profile.placement != "auto":
            return resolve_placement(profile, gpus=1)
        budget_mib = self.budget_mib - DRIVER_MIB - profile.gpu_reserve_mib
        return place(model, profile, kind="llama.cpp", budgets_mib=[budget_mib])


def report(rows: list[Measured], vram_gib: int) -> list[str]:
    """Markdown: one row for each setting, and the gain of placement auto."""
    lines = [
        "| model | profile | placement | predicted MiB | held MiB | error | prompt | answer |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = (
            row.setting.model,
            row.setting.name(),
            row.placement,
            str(row.predicted_mib),
            str(row.held_mib),
            f"{row.error_percent:+.1f}%",
            _speed(row.prompt_speeds),
            _speed(row.answer_speeds),
        )
        lines.append(f"| {' | '.join(cells)} |")
    worst = max(rows, key=lambda row: abs(row.error_percent))
    by_name = {row.setting.name(): row for row in rows}
    before = by_name["glm-4.5-air-experts-on-cpu"]
    auto = by_name["glm-4.5-air-realtime"]
    gain = statistics.median(auto.answer_speeds) / statistics.median(before.answer_speeds)
    return [
        *lines,
        "",
        f"Largest error {worst.error_percent:+.1f}%. Within {vram_gib} GiB placement auto answers "
        f"{gain:.2f} times as fast as experts on the CPU. Speeds are tokens/s: median and range of "
        f"{_RUNS} runs of {PROMPT_TOKENS} prompt and {ANSWER_TOKENS} answer tokens.",
    ]


def _speed(speeds: tuple[float, ...]) -> str:
    return f"{statistics.median(speeds):.1f} ({min(speeds):.1f}-{max(speeds):.1f})"


def _format_placement(placement: ResolvedPlacement) -> str:
    layers = placement.gpu_layers
    kept = "all experts" if placement.experts_on_cpu else ""
    if placement.cpu_moe_layers:
        kept = f"experts of {placement.cpu_moe_layers} layers"
    more = " and a part" if placement.tensor_overrides else ""
    return f"{layers} layers on the GPU{f', {kept}{more} on the host' if kept else ''}"


if __name__ == "__main__":
    main()
