"""A release that is a Python environment: what the catalog says of it."""

from __future__ import annotations

from typing import Annotated, Literal

from corral_shared.requirements import normalized
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, Field

from corral.schema import Frozen

# No user and password: they would be in plans, logs and argument lists.
ADDRESS = r"^(https?|file)://[^\s?#@]+$"
_GIB = 1024**3


def _requirement(text: str) -> str:
    try:
        parsed = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"{text!r} is no requirement, such as vllm==0.33.0") from error
    if parsed.url:
        raise ValueError(f"{text!r} names an address; name an index instead")
    return str(parsed)


def _specifier(text: str) -> str:
    try:
        parsed = SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError(f"{text!r} is no range of versions, such as >=3.11,<3.15") from error
    if not any(one.operator in (">=", "==", "~=") for one in parsed):
        raise ValueError(f"{text!r} has no lowest version, such as >=3.11")
    return text


class PythonEnvironment(Frozen):
    """A release that is a Python environment: the platform's interpreter and locked wheels.

    `corral lock` compiles ``requirements`` to one file with the hashes of all distributions.
    """

    requirements: tuple[Annotated[str, AfterValidator(_requirement)], ...] = Field(
        min_length=1, description="what is installed, as for pip: `vllm==0.33.0`"
    )
    python: Annotated[str, AfterValidator(_specifier)] = Field(
        description="versions of Python that it runs on: `>=3.11,<3.15`"
    )
    backend: Literal["cpu", "cuda"] | None = Field(
        default=None, description="what its wheels compute on; either if unset"
    )
    without: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")], ...] = Field(
        default=(), description="distributions that are left out, though others require them"
    )
    index: str | None = Field(
        default=None, pattern=ADDRESS,
        description="simple index for `corral lock` and hosts; their own configured one if unset",
    )  # fmt: skip
    find_links: str | None = Field(
        default=None, pattern=ADDRESS,
        description="folder or page with wheels; without `index`, there is no other source",
    )  # fmt: skip
    unpacked_bytes: int = Field(
        default=2 * _GIB, gt=0, lt=2**40,
        description="limit for all its files together, and the space that a host must have",
    )  # fmt: skip
    unpacked_files: int = Field(
        default=100_000, gt=0, le=1_000_000, description="limit for their number of files"
    )

    @property
    def pinned(self) -> str:
        """What the lock must have been compiled for, as one line for people."""
        left_out = sorted({normalized(name) for name in self.without})
        without = f" without {' '.join(left_out)}" if left_out else ""
        return f"{' '.join(sorted(self.requirements))} for Python {self.python}{without}"

    @property
    def marker(self) -> str:
        """Where it is installed, as an environment marker (PEP 508): Linux on x86-64."""
        versions = sorted(SpecifierSet(self.python), key=str)
        ranges = [f"python_full_version {one.operator} '{one.version}'" for one in versions]
        return " and ".join(["sys_platform == 'linux'", "platform_machine == 'x86_64'", *ranges])

    @property
    def lowest_python(self) -> str:
        """The lowest version of Python, such as 3.11."""
        lows = [one for one in SpecifierSet(self.python) if one.operator in (">=", "==", "~=")]
        return lows[0].version.removesuffix(".*")

    def runs_on(self, python: str) -> bool:
        """Whether it runs on a version of Python, such as 3.12."""
        return SpecifierSet(self.python).contains(python)
