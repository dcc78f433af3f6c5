"""The real llama.cpp repository, shallow, as its source distribution carries it.

`llama-cpp-python` is packed with the git module that it was made from, so the commit is upstream's.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from lab.source_tools import (
    BASE_REF,
    Distribution,
    bare_repository,
    download,
    extract,
    git,
    serve_any_commit,
    step,
)

COMMIT = "0c1e57098bba43ac29e6e3b677cdceebdd22334f"

_DISTRIBUTION = Distribution(
    requirement="llama-cpp-python==0.3.36",
    archive="llama_cpp_python-0.3.36.tar.gz",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
)
_GIT_MODULE = PurePosixPath("llama_cpp_python-0.3.36/.git/modules/vendor/llama.cpp")


def make(folder: Path) -> Path:
    """A bare repository below ``folder`` with `COMMIT`. Downloads 77 MB. Raises CorralError."""
    module = extract(download(_DISTRIBUTION, folder), _GIT_MODULE, folder / "module")
    # The module has no work tree here, and its remotes and includes are those of its maker.
    (module / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
    serve_any_commit(module)
    with step("make a bare repository"):
        repository = bare_repository(folder / "bare.git")
        wanted = f"{COMMIT}:{BASE_REF}"
        git(repository, "fetch", "--quiet", "--depth=1", module.absolute().as_uri(), wanted)
    return repository
