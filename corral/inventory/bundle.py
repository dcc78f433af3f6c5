"""The bundle of a fleet without a network: everything its hosts need, in a folder."""

from __future__ import annotations

from pydantic import Field

from corral.names import HubUrl
from corral.schema import Frozen


class BundleSpec(Frozen):
    """A bundle as the only source of a deploy."""

    folder: str = Field(
        min_length=1, description="folder of the bundle on the controller, as `corral bundle` wrote"
    )
    url: HubUrl = Field(
        description="where hosts reach `corral bundle serve`, such as http://10.20.0.1:8090; on "
        "their own loopback, such as http://127.0.0.1:8090, with its --ssh"
    )
    public_key: str | None = Field(
        default=None,
        description="file with the public key (minisign) that the bundle must be signed with",
    )
