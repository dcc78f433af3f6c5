"""How a server is started, as planned: natively, or in an image."""

from __future__ import annotations

from typing import Literal

from corral.schema import Frozen


class RuntimePlan(Frozen):
    """What precedes the server's own command line in its unit, and what that needs.

    + command: none for a native server; + image: on the host
    + binds: SOURCE:TARGET:MODE of folders and files of the host in the container
    + program: apptainer or singularity, or its path; + unpacks: it unpacks images at each start
    """

    kind: Literal["native", "apptainer"] = "native"
    command: tuple[str, ...] = ()
    image: str | None = None
    binds: tuple[str, ...] = ()
    program: str = ""
    unpacks: bool = False


NATIVE = RuntimePlan()
