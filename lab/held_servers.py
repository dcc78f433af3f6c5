"""The servers of lab/measure_servers, in the order of their worth, and their models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corral.catalog.entries import EngineKind
from lab.cut_headers import cut_header
from lab.model_headers import (
    DEEPSEEK_V2_5,
    GLM_4_6V_FLASH,
    GLM_4_7_FLASH,
    GLM_5,
    GLM_5_2,
    GLM_5_3_FLASH,
    Shape,
    write_header,
)
from lab.projector_headers import GLM_4_6V_FLASH as GLM_4_6V_FLASH_PROJECTOR
from lab.projector_headers import ProjectorShape, write_projector

IMAGE_PIXELS = 896


@dataclass(frozen=True)
class Server:
    """One server.

    + prompts: tokens of each prompt, so that the cache is used to its end; + answer: tokens of each
    + budgets_gib: memory of each GPU that placement = "auto" plans with, none for that of H200s
    + nccl: built with it, which Corral's builds are not; + image: pixels of a side, 0 for none
    + quiet: its speed counts, so it waits until nothing is built; + round: of a repeated one
    + seconds: that it takes, about
    """

    name: str
    engine: EngineKind
    model: str
    profile: dict[str, Any]
    gpus: int = 1
    prompts: tuple[int, ...] = ()
    answer: int = 32
    budgets_gib: tuple[int, ...] = ()
    projector: str = ""
    draft: str = ""
    nccl: bool = False
    image: int = 0
    quiet: bool = False
    round: int = 1
    seconds: int = 30


# Models of published dimensions.
MADE: dict[str, Shape] = {
    "flash": replace(GLM_4_7_FLASH, blocks=47, mtp_blocks=0),
    "flash-8": replace(GLM_4_7_FLASH, blocks=8, mtp_blocks=0),
    # As files were before the keys of latent attention: attn_kv_b, and no parts of it.
    "v25-old": replace(
        DEEPSEEK_V2_5, blocks=6, key_length_mla=0, value_length_mla=0, kv_heads=128,
        key_length=192, value_length=128,
    ),
    "glm-5": replace(GLM_5, blocks=6, mtp_blocks=0),
    "glm-5.2": replace(GLM_5_2, blocks=6, mtp_blocks=0),
    "glm-5.2-14": replace(GLM_5_2, blocks=14, mtp_blocks=0),
    "glm-5.3-flash": replace(GLM_5_3_FLASH, blocks=8, mtp_blocks=0),
    "glm-4.6v-flash": GLM_4_6V_FLASH,
}  # fmt: skip
# Real headers, and the blocks that are kept of each.
_AIR, _DENSE = "GLM-4.5-Air", "GLM-4-32B-0414"
CUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "air": (_AIR, tuple(range(47))),
    "air-12": (_AIR, tuple(range(12))),
    "air-8-mtp": (_AIR, (*range(8), 46)),
    "dense": (_DENSE, tuple(range(61))),
    "dense-8": (_DENSE, tuple(range(8))),
}
PROJECTORS: dict[str, ProjectorShape] = {"glm-4.6v-flash-projector": GLM_4_6V_FLASH_PROJECTOR}


def write_model(name: str, path: Path, headers: Path) -> None:
    """Write a model or projector without weights; ``headers``: folder of the real ones."""
    if name in MADE:
        write_header(path, MADE[name])
    elif name in PROJECTORS:
        write_projector(path, PROJECTORS[name])
    else:
        whole, blocks = CUT[name]
        cut_header(headers / f"{whole}.gguf-header.xz", path, blocks=blocks)


_Q8_0 = {"kv_type_k": "q8_0", "kv_type_v": "q8_0"}
_LONG = {"context_tokens_per_slot": 65536}
_IK: EngineKind = "ik_llama.cpp"
_MAINLINE: EngineKind = "llama.cpp"
_AMB = {"attention_max_batch_mib": 512}
_MOE = {"context_tokens_per_slot": 16384, **_Q8_0}


def _ik() -> list[Server]:
    """Latent attention by its modes, experts in host memory, drafts."""
    longest = {"context_tokens_per_slot": 202752}
    return [
        Server("Flash, 65536", _IK, "flash", _LONG, prompts=(65000,), seconds=60),
        Server("Flash, 65536, attention_max_batch_mib 512", _IK, "flash", {**_LONG, **_AMB},
               prompts=(65000,), seconds=60),
        Server("Flash of 8 blocks, 202752", _IK, "flash-8", longest, prompts=(202000,),
               seconds=70),
        Server("Flash of 8 blocks, 202752, attention_max_batch_mib 512", _IK, "flash-8",
               {**longest, **_AMB}, prompts=(202000,), seconds=70),
        Server("Flash, 16384, mla_mode 0", _IK, "flash",
               {"context_tokens_per_slot": 16384, "mla_mode": 0}, prompts=(16000,)),
        Server("Flash, 16384, mla_mode 1, no flash attention", _IK, "flash",
               {"context_tokens_per_slot": 16384, "mla_mode": 1, "flash_attention": False},
               prompts=(16000,)),
        Server("Air of 12 blocks, cpu_moe_layers 6, two GPUs", _IK, "air-12",
               {"cpu_moe_layers": 6, "split_mode": "layer", **_MOE}, gpus=2, prompts=(8000,)),
        Server("Air of 8 blocks, MTP, 131072", _IK, "air-8-mtp",
               {"context_tokens_per_slot": 131072, "mtp_draft_tokens": 2, **_Q8_0},
               prompts=(60000,), seconds=45),
        Server("Flash, 65536, two GPUs", _IK, "flash", {**_LONG, "split_mode": "layer"}, gpus=2,
               prompts=(65000,), seconds=60),
        Server("GLM-5 of 6 blocks, 32768", _IK, "glm-5", {"context_tokens_per_slot": 32768},
               prompts=(32000,), seconds=45),
        Server("V2.5 of 6 blocks with attn_kv_b, 32768", _IK, "v25-old",
               {"context_tokens_per_slot": 32768}, prompts=(32000,), seconds=45),
    ]  # fmt: skip


def _mainline() -> list[Server]:
    """New architectures, drafts, images, and budgets of different size."""
    halves = {"context_tokens_per_slot": 32768, "placement": "auto", **_Q8_0}
    return [
        Server("Air of 8 blocks, MTP, 131072", _MAINLINE, "air-8-mtp",
               {"context_tokens_per_slot": 131072, "mtp_draft_tokens": 2, **_Q8_0},
               prompts=(60000,), seconds=45),
        Server("GLM-5 of 6 blocks, 65536", _MAINLINE, "glm-5", _LONG, prompts=(60000,),
               seconds=60),
        Server("GLM-5.2 of 6 blocks, 131072, q8_0", _MAINLINE, "glm-5.2",
               {"context_tokens_per_slot": 131072, **_Q8_0}, prompts=(60000,), seconds=60),
        Server("GLM-5.3-Flash of 8 blocks, 65536", _MAINLINE, "glm-5.3-flash", _LONG,
               prompts=(60000,), seconds=60),
        Server("GLM-4.6V-Flash with its projector, 32768", _MAINLINE, "glm-4.6v-flash",
               {"context_tokens_per_slot": 32768, "vision": True}, prompts=(8000,),
               projector="glm-4.6v-flash-projector", image=IMAGE_PIXELS),
        Server("GLM-4-32B with a draft model of 8 blocks, 32768", _MAINLINE, "dense",
               {"context_tokens_per_slot": 32768, "draft_model": "d/q", **_Q8_0},
               prompts=(8000,), draft="dense-8"),
        Server("Air of 12 blocks, cpu_moe_layers 6, two GPUs", _MAINLINE, "air-12",
               {"cpu_moe_layers": 6, "split_mode": "layer", **_MOE}, gpus=2, prompts=(8000,)),
        Server("Air, auto for 40 and 80 GiB", _MAINLINE, "air", halves, gpus=2, prompts=(8000,),
               budgets_gib=(40, 80), seconds=60),
        Server("Air, auto for 24 and 40 GiB", _MAINLINE, "air", halves, gpus=2, prompts=(8000,),
               budgets_gib=(24, 40), seconds=60),
        Server("GLM-5.2 of 14 blocks, 65536, two GPUs", _MAINLINE, "glm-5.2-14",
               {**_LONG, "split_mode": "layer"}, gpus=2, prompts=(30000,), seconds=60),
    ]  # fmt: skip


def _speeds() -> list[Server]:
    """Split modes on two GPUs, each twice, in turns."""
    halves = {"context_tokens_per_slot": 32768, **_Q8_0}
    modes = [
        Server(f"{name}, split_mode {mode}{' with NCCL' if nccl else ''}", engine, model,
               {**halves, "split_mode": mode}, gpus=2, prompts=(1024,) * 3, answer=64,
               quiet=True, nccl=nccl, seconds=seconds)
        for engine, model, name, mode, nccl, seconds in (
            (_IK, "air", "Air", "graph", False, 40),
            (_IK, "air", "Air", "graph", True, 40),
            (_IK, "air", "Air", "layer", False, 30),
            (_MAINLINE, "air", "Air", "layer", False, 30),
            (_MAINLINE, "air", "Air", "tensor", False, 30),
            (_MAINLINE, "air", "Air", "tensor", True, 30),
            (_MAINLINE, "dense", "GLM-4-32B", "layer", False, 20),
            (_MAINLINE, "dense", "GLM-4-32B", "tensor", False, 20),
        )
    ]  # fmt: skip
    return [replace(server, round=number) for number in (1, 2) for server in modes]


def _last() -> list[Server]:
    """What is measured if there is time left."""
    return [
        Server("Flash, 32768, q8_0", _IK, "flash", {"context_tokens_per_slot": 32768, **_Q8_0},
               prompts=(32000,)),
        Server("Air of 12 blocks, cpu_moe_layers 6", _IK, "air-12",
               {"cpu_moe_layers": 6, **_MOE}, prompts=(8000,)),
        Server("Air of 8 blocks, MTP, 2 slots of 32768", _IK, "air-8-mtp",
               {"context_tokens_per_slot": 32768, "slots": 2, "mtp_draft_tokens": 2, **_Q8_0},
               prompts=(30000,)),
        Server("Flash, 202752", _IK, "flash", {"context_tokens_per_slot": 202752},
               prompts=(202000,), seconds=250),
    ]  # fmt: skip


SERVERS = (*_ik(), *_mainline(), *_speeds(), *_last())
