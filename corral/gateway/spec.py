"""What an inventory says about a gateway: the key ``gateway`` in the data of its host."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field, field_validator

from corral.schema import Frozen

Weight = Annotated[int, Field(ge=0, le=100)]


class AliasSpec(Frozen):
    """The port of one alias, and shares of its servers where they are not equal."""

    port: int = Field(gt=0, lt=65536)
    weights: dict[str, Weight] = Field(
        default_factory=dict, description='"host/instance" -> 0 to 100; 100 if unset'
    )


class GatewaySpec(Frozen):
    """One OpenAI-compatible address for each alias, in front of its instances."""

    aliases: dict[str, AliasSpec]
    address: str = Field(default="127.0.0.1", description="address to listen on")
    metrics_port: int | None = Field(default=8404, gt=0, lt=65536, description="None: no metrics")
    tls_certificate: str | None = Field(
        default=None, description="PEM with chain and key, on the controller"
    )

    @field_validator("aliases")
    @classmethod
    def _some(cls, aliases: dict[str, AliasSpec]) -> dict[str, AliasSpec]:
        if not aliases:
            raise ValueError("names no alias")
        return aliases

    @field_validator("address")
    @classmethod
    def _numeric(cls, address: str) -> str:
        return str(ipaddress.ip_address(address))
