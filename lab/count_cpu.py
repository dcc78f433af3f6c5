"""What the engines themselves count on the CPU: KV cache, compute buffers, weights made at load.

    python -m lab.count_cpu --llama-cpp BIN --ik-llama-cpp BIN --headers DIR \\
        > tests/data/cpu-compute.csv

ik_llama.cpp has no program that counts; its ``--dry-run`` allocates everything, and crashes where
latent attention is prepared from mapped weights. So servers are started on files of a few blocks
without weights, and stopped once their log has the sizes of all buffers: a buffer for computing
does not depend on the number of blocks. BIN has a llama-server, DIR the two ``*.gguf-header.xz`` of
real models.
"""

from __future__ import annotations

import csv
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import click

from corral.catalog.entries import EngineKind
from lab.cut_headers import cut_header
from lab.model_headers import (
    DEEPSEEK_V2_5,
    GLM_4_7_FLASH,
    GLM_5,
    GLM_5_2,
    GLM_5_3_FLASH,
    Shape,
    write_header,
)

_SECONDS, _END_SECONDS = 300, 30
_AIR, _DENSE, _FLASH = "GLM-4.5-Air", "GLM-4-32B-0414", "GLM-4.7-Flash"
_OLD, _HYBRID = "DeepSeek-V2.5 old", "GLM-5.3-Flash"
# ik_llama.cpp does not know these architectures.
_MAINLINE_ONLY = (_HYBRID,)
MADE: dict[str, Shape] = {
    _FLASH: replace(GLM_4_7_FLASH, blocks=3, mtp_blocks=0, experts=8),
    "DeepSeek-V2.5": replace(DEEPSEEK_V2_5, blocks=3, experts=8),
    "GLM-5": replace(GLM_5, blocks=6, mtp_blocks=0, experts=16),
    "GLM-5.2": replace(GLM_5_2, blocks=6, mtp_blocks=0, experts=16),
    _HYBRID: replace(GLM_5_3_FLASH, blocks=8, mtp_blocks=0, experts=16),
    # As files were before the keys of latent attention: attn_kv_b, and no parts of it.
    _OLD: replace(
        DEEPSEEK_V2_5, blocks=3, experts=8, key_length_mla=0, value_length_mla=0,
        kv_heads=128, key_length=192, value_length=128,
    ),
}  # fmt: skip
# Real headers, and the blocks that are kept of each.
CUT = {_DENSE: (0, 1, 2), _AIR: (0, 1, 46)}
# With the states of linear attention.
_KV = re.compile(r"CPU (?:KV|RS) buffer size = +([0-9.]+) MiB")
_COMPUTE = re.compile(r"CPU compute buffer size = +([0-9.]+) MiB")
_COMPUTED = re.compile(r"Computed blk\.0\.(attn_\S+) as (.*) of type")
_READY = "listening"


@dataclass(frozen=True)
class Setting:
    """One start of a server; 0 and "" leave a flag out."""

    engine: EngineKind
    model: str
    context_tokens: int = 16384
    slots: int = 1
    kv_type: str = "f16"
    ubatch_tokens: int = 512
    flash_attention: str = "on"
    mla_mode: str = ""
    attention_max_batch_mib: int = 0
    mtp_draft_tokens: int = 0

    def flags(self) -> list[str]:
        given = ["--ctx-size", str(self.context_tokens), "--parallel", str(self.slots)]
        given += ["--cache-type-k", self.kv_type, "--cache-type-v", self.kv_type]
        given += ["--ubatch-size", str(self.ubatch_tokens), "--batch-size", "4096"]
        given += ["--flash-attn", self.flash_attention, "--cache-ram", "0", "--no-warmup"]
        given += ["--mla-use", self.mla_mode] if self.mla_mode else []
        amb, drafted = self.attention_max_batch_mib, str(self.mtp_draft_tokens)
        given += ["--attention-max-batch", str(amb)] if amb else []
        if self.engine == "llama.cpp":
            given += ["--fit", "off", "--verbosity", "4"]
            drafting = ["--spec-type", "draft-mtp", "--spec-draft-n-max", drafted]
        else:
            drafting = ["--multi-token-prediction", "--draft-max", drafted]
        return [*given, *(drafting if self.mtp_draft_tokens else [])]


def settings() -> Iterator[Setting]:
    """Contexts, batches and types of each model, and every mode of latent attention."""
    engines: tuple[EngineKind, ...] = ("llama.cpp", "ik_llama.cpp")
    for engine in engines:
        for model in (*MADE, *CUT):
            if model != _OLD if engine == "llama.cpp" else model not in _MAINLINE_ONLY:
                yield from _common(engine, model)
        for slots, kv_type, ubatch_tokens in ((1, "f16", 512), (2, "f16", 512), (1, "q8_0", 1024)):
            yield Setting(engine, _AIR, 16384, slots, kv_type, ubatch_tokens, mtp_draft_tokens=2)
    for model in (name for name in MADE if name not in _MAINLINE_ONLY):
        yield from _latent("ik_llama.cpp", model)


def _common(engine: EngineKind, model: str) -> Iterator[Setting]:
    for ubatch_tokens in (64, 512, 2048):
        for context_tokens in (5120, 16384, 65536):
            yield Setting(engine, model, context_tokens, ubatch_tokens=ubatch_tokens)
    yield Setting(engine, model, slots=4)
    for context_tokens in (5120, 32768):
        yield Setting(engine, model, context_tokens, kv_type="q8_0")
        yield Setting(engine, model, context_tokens, kv_type="q8_0", ubatch_tokens=1024)
    yield Setting(engine, model, flash_attention="off")
    yield Setting(engine, model, ubatch_tokens=64, flash_attention="off")


def _latent(engine: EngineKind, model: str) -> Iterator[Setting]:
    for mode in ("0", "1", "2", "3"):
        for ubatch_tokens in (64, 512, 2048):
            yield Setting(engine, model, ubatch_tokens=ubatch_tokens, mla_mode=mode)
        yield Setting(engine, model, mla_mode=mode, flash_attention="off")
        yield Setting(engine, model, 5120, 1, "q8_0", mla_mode=mode)
        off = Setting(engine, model, flash_attention="off", mla_mode=mode)
        yield replace(off, attention_max_batch_mib=64)
    for most_mib in (64, 256, 512, 1024):
        yield Setting(engine, model, attention_max_batch_mib=most_mib)
        yield Setting(engine, model, 65536, attention_max_batch_mib=most_mib)


@click.command()
@click.option("--llama-cpp", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--ik-llama-cpp", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--only", default="", help="A model; the rows of the others are left out.")
@click.option("--headers", type=click.Path(path_type=Path, exists=True), required=True)
def main(llama_cpp: Path, ik_llama_cpp: Path, headers: Path, only: str) -> None:
    """Count every setting and print the rows."""
    programs: dict[EngineKind, Path] = {"llama.cpp": llama_cpp, "ik_llama.cpp": ik_llama_cpp}
    names = [field.name for field in fields(Setting)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*names, "kv_mib", "compute_mib", "computed_tensors"])
    with tempfile.TemporaryDirectory() as folder:
        for setting in dict.fromkeys(settings()):
            if only not in ("", setting.model):
                continue
            model = small_file(setting.model, headers, Path(folder))
            program = programs[setting.engine] / "llama-server"
            log = logged([str(program), "--model", str(model), *setting.flags()], Path(folder))
            asked = [getattr(setting, name) for name in names]
            writer.writerow([*asked, *counted(log, setting)])
            sys.stdout.flush()


def small_file(name: str, headers: Path, folder: Path) -> Path:
    """A file of a few blocks of a model."""
    path = folder / f"{name}.gguf"
    if not path.exists():
        if name in MADE:
            write_header(path, MADE[name])
        else:
            cut_header(headers / f"{name}.gguf-header.xz", path, blocks=CUT[name])
    return path


def counted(log: str, setting: Setting) -> tuple[str, str, str]:
    """MiB of the KV and compute buffers of all contexts, and the first block's new tensors."""
    kv = [float(mib) for mib in _KV.findall(log)]
    compute = [float(mib) for mib in _COMPUTE.findall(log)]
    if setting.engine == "llama.cpp":
        # Each context may name its buffer again when it plans anew.
        compute = [compute[0], compute[-1]] if setting.mtp_draft_tokens else compute[-1:]
    computed = sorted(f"{name} {shape}" for name, shape in _COMPUTED.findall(log))
    return f"{sum(kv):.2f}", f"{sum(compute):.2f}", "; ".join(computed)


def logged(argv: Sequence[str], folder: Path) -> str:
    """The log of a server from its start until it listens."""
    path = folder / "log"
    with path.open("wb") as output:
        server = subprocess.Popen(
            [*argv, "--host", "127.0.0.1", "--port", "18099"], stdout=output, stderr=output
        )
        try:
            _wait(server, path, " ".join(argv))
        finally:
            # A regular end flushes the lines about computed tensors.
            server.send_signal(signal.SIGINT)
            try:
                server.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    return path.read_text(errors="replace")


def _wait(server: subprocess.Popen[bytes], log: Path, command: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while _READY not in log.read_text(errors="replace"):
        if server.poll() is not None or time.monotonic() > deadline:
            raise click.ClickException(f"{command}\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
