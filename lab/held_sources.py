"""The engines' sources for a machine without a network: what a server needs to be built, packed.

Left out are models, pages, tests, and the backends of other accelerators.
"""

from __future__ import annotations

import lzma
from pathlib import Path

from corral.catalog.entries import EngineKind
from lab.engine_source import SOURCES
from lab.source_tools import git

# Names of the lab's repositories.
_NAMES: dict[EngineKind, str] = {"llama.cpp": "llama.cpp", "ik_llama.cpp": "lab-ik_llama.cpp"}
_LEFT_OUT: dict[EngineKind, tuple[str, ...]] = {
    "llama.cpp": (
        *(".devops", ".github", "benches", "conversion", "docs", "examples", "gguf-py", "media"),
        *("models", "pocs", "requirements", "scripts/snapdragon", "tests"),
        *(f"tools/ui/{part}" for part in ("package-lock.json", "src", "static", "tests")),
        *(f"ggml/src/ggml-{name}" for name in ("cann", "et", "hexagon", "metal", "opencl")),
        *(f"ggml/src/ggml-{name}" for name in ("openvino", "sycl", "vulkan", "webgpu")),
    ),
    "ik_llama.cpp": (
        *("docs", "gguf-py", "github-data", "media", "models", "tests"),
        *("examples/llama.android", "examples/llama.swiftui", "examples/server/themes"),
        *(f"examples/server/{name}" for name in ("webui", "webui_llamacpp", "public_legacy")),
        "examples/server/public_mikupad",
        *("ggml/src/kompute", "ggml/src/vulkan-shaders", "ggml/src/ggml-vulkan.cpp"),
        *("ggml/src/ggml-cann", "ggml/src/ggml-metal.metal", "ggml/src/ggml-sycl"),
    ),
}


def pack(kind: EngineKind, repositories: Path, archive: Path) -> None:
    """Write the sources of an engine to ``archive`` (.tar.xz). Raises CorralError.

    + repositories: folder of the lab's repositories, as lab.engine_source makes it
    """
    name = _NAMES[kind]
    left_out = [f":(exclude){path}" for path in _LEFT_OUT[kind]]
    commit = SOURCES[name].commit
    packed = git(repositories / f"{name}.git", "archive", commit, "--", ".", *left_out)
    archive.write_bytes(lzma.compress(packed, preset=6))
