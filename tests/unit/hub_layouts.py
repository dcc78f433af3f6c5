"""The repositories that the catalog names, as a stand-in hub can serve them: names, shards, sizes.

Sizes that are published stand in bytes; the others are shares of a published total, or only
plausible. No weights: the files are holes, and their digests are made up.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lab.hub_store import git_blob_id, lfs_pointer

GB = 10**9
GIB = 1024**3


def _shards(stem: str, *sizes_bytes: int) -> dict[str, int]:
    count = len(sizes_bytes)
    return {
        f"{stem}-{number:05}-of-{count:05}.gguf": size_bytes
        for number, size_bytes in enumerate(sizes_bytes, start=1)
    }


def _safetensors(count: int, total_gb: int) -> dict[str, int]:
    """Shards of one size."""
    return {
        f"model-{number:05}-of-{count:05}.safetensors": total_gb * GB // count
        for number in range(1, count + 1)
    }


# Beside what the catalog asks for, each holds what a pattern must not take: other quants.
LAYOUTS: dict[str, dict[str, int]] = {
    "unsloth/GLM-4.5-Air-GGUF": {
        **_shards("UD-Q4_K_XL/GLM-4.5-Air-UD-Q4_K_XL", 50 * GB, 22_900_000_000),
        **_shards("Q8_0/GLM-4.5-Air-Q8_0", 50 * GB, 50 * GB, 17 * GB),
        "GLM-4.5-Air-UD-Q2_K_XL.gguf": 46 * GB,
    },
    "ubergarm/GLM-4.5-Air-GGUF": {
        **_shards("IQ4_KSS/GLM-4.5-Air-IQ4_KSS", 46 * GIB, 8 * GIB),
        **_shards("IQ5_K/GLM-4.5-Air-IQ5_K", 45 * GIB, 27 * GIB),
    },
    "unsloth/GLM-4.5-GGUF": {
        **_shards("UD-Q2_K_XL/GLM-4.5-UD-Q2_K_XL", 50 * GB, 50 * GB, 35 * GB),
        **_shards("UD-Q4_K_XL/GLM-4.5-UD-Q4_K_XL", 50 * GB, 50 * GB, 50 * GB, 50 * GB, 5 * GB),
        "GLM-4.5-UD-TQ1_0.gguf": 84 * GB,
    },
    "zai-org/GLM-4.5-Air-FP8": _safetensors(47, 112),
    "zai-org/GLM-4.5-Air": _safetensors(47, 221),
    "zai-org/GLM-4.5-FP8": _safetensors(93, 362),
    "zai-org/GLM-4.6-FP8": _safetensors(93, 362),
    "zai-org/GLM-4.7-FP8": _safetensors(93, 362),
    "zai-org/GLM-4.7-Flash": _safetensors(48, 62),
    "zai-org/GLM-4-32B-0414": _safetensors(14, 65),
    "unsloth/GLM-4.6-GGUF": {
        **_shards("UD-Q2_K_XL/GLM-4.6-UD-Q2_K_XL", 50 * GB, 50 * GB, 35 * GB),
        "GLM-4.6-UD-TQ1_0.gguf": 84 * GB,
    },
    "unsloth/GLM-4.7-GGUF": {
        **_shards("UD-Q2_K_XL/GLM-4.7-UD-Q2_K_XL", 50 * GB, 50 * GB, 34 * GB),
        **_shards(
            "Q4_K_M/GLM-4.7-Q4_K_M",
            *(50_006_655_232, 49_705_685_664, 49_631_164_960, 49_501_239_424, 17_610_827_296),
        ),
        **_shards("UD-Q4_K_XL/GLM-4.7-UD-Q4_K_XL", 50 * GB, 50 * GB, 50 * GB, 50 * GB, 5 * GB),
        "GLM-4.7-UD-TQ1_0.gguf": 84 * GB,
    },
    "unsloth/GLM-5.2-GGUF": {
        **_shards("UD-IQ2_M/GLM-5.2-UD-IQ2_M", *[50 * GB] * 4, 38_500_000_000, 100_000_000),
        **_shards("UD-IQ4_NL/GLM-5.2-UD-IQ4_NL", *[46 * GB] * 8, 4 * GB),
        **_shards("UD-IQ2_XXS/GLM-5.2-UD-IQ2_XXS", *[50 * GB] * 4, 38 * GB, 100_000_000),
    },
    "ggml-org/GLM-5.3-Flash-GGUF": {
        "GLM-5.3-Flash-Q2_K.gguf": 117 * GB,
        "GLM-5.3-Flash-Q4_K.gguf": 188 * GB,
        "mmproj-GLM-5.3-Flash-Q8_0.gguf": 1_130_000_000,
        "mtp-GLM-5.3-Flash-Q8_0.gguf": 9 * GB,
        "mtp-GLM-5.3-Flash-Q4_0.gguf": 5 * GB,
    },
    "ggml-org/GLM-4.6V-Flash-GGUF": {
        "GLM-4.6V-Flash-Q4_K_M.gguf": 6_166_577_888,
        "GLM-4.6V-Flash-Q8_0.gguf": 10 * GB,
        "mmproj-GLM-4.6V-Flash-Q8_0.gguf": 980_055_680,
        "mmproj-GLM-4.6V-Flash-F16.gguf": 1_660_000_000,
    },
    "unsloth/GLM-4.7-Flash-GGUF": {
        "GLM-4.7-Flash-UD-Q4_K_XL.gguf": 18 * GB,
        "GLM-4.7-Flash-Q4_K_M.gguf": 18 * GB,
    },
    "bartowski/THUDM_GLM-4-32B-0414-GGUF": {
        "THUDM_GLM-4-32B-0414-IQ4_XS.gguf": 17_593_510_848,
        "THUDM_GLM-4-32B-0414-Q4_K_M.gguf": 19_680_000_000,
        "THUDM_GLM-4-32B-0414-Q4_K_L.gguf": 20 * GB,
    },
    "bartowski/THUDM_GLM-Z1-32B-0414-GGUF": {
        "THUDM_GLM-Z1-32B-0414-IQ4_XS.gguf": 17_593_510_848,
        "THUDM_GLM-Z1-32B-0414-IQ3_M.gguf": 15 * GB,
    },
    "bartowski/DeepSeek-V2.5-GGUF": {
        **_shards("DeepSeek-V2.5-Q4_0/DeepSeek-V2.5-Q4_0", 40 * GB, 40 * GB, 40 * GB, 14 * GB),
        **_shards("DeepSeek-V2.5-Q4_K_M/DeepSeek-V2.5-Q4_K_M", 40 * GB, 40 * GB, 40 * GB, 22 * GB),
        **_shards("DeepSeek-V2.5-IQ4_XS/DeepSeek-V2.5-IQ4_XS", 40 * GB, 40 * GB, 40 * GB, 6 * GB),
    },
    "corral-lab/Tiny-GLM-MoE-GGUF": {
        **_shards("F16/Tiny-GLM-MoE-F16", 326_848, 327_392),
        "Q8_0/Tiny-GLM-MoE-Q8_0.gguf": 357_088,
    },
    "corral-lab/Tiny-GLM-MoE": {
        "BF16/model-00001-of-00002.safetensors": 528_368,
        "BF16/model-00002-of-00002.safetensors": 428_920,
        "F32/model.safetensors": 1_909_320,
    },
}


def write_layouts(root: Path) -> None:
    """All repositories below a hub's root: holes of the declared sizes, and a page each."""
    for repository, files in LAYOUTS.items():
        revision = root / "repos" / repository / "main"
        for path, size_bytes in files.items():
            write_hole(revision / path, size_bytes)
        (revision / "README.md").write_text(f"# {repository}\n")
        _write_small_files(revision)


def _write_small_files(revision: Path) -> None:
    """What the repositories have beside shards of safetensors; texts are only plausible."""
    folders = {path.parent for path in revision.rglob("*.safetensors")}
    for folder in folders:
        shards = sorted(path.name for path in folder.glob("*.safetensors"))
        weight_map = {f"model.layers.{n}.weight": name for n, name in enumerate(shards)}
        documents: dict[str, object] = {
            "config.json": {"architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe"},
            "generation_config.json": {"eos_token_id": [151329]},
            "tokenizer.json": {"version": "1.0"},
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizer"},
        }
        if len(shards) > 1:
            documents["model.safetensors.index.json"] = {"metadata": {}, "weight_map": weight_map}
        for name, document in documents.items():
            (folder / name).write_text(json.dumps(document))
        (folder / "chat_template.jinja").write_text("[gMASK]<sop>")


def write_hole(path: Path, size_bytes: int) -> None:
    """A file of a size that takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size_bytes)


def declared_digests(location: Path) -> tuple[str, str]:
    """In place of reading the holes: a digest of the name, and the blob id of its pointer."""
    sha256 = hashlib.sha256(location.name.encode()).hexdigest()
    return sha256, git_blob_id(lfs_pointer(sha256, location.stat().st_size))
