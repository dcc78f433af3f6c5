"""A gateway in an inventory: the key ``gateway`` in the data of its host."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, field_validator

from corral.schema import Frozen

# What clients see of a server beside its alias.
Difference = Literal["context", "slots", "vision"]
Weight = Annotated[int, Field(ge=0, le=100)]


def _network(value: object) -> IPv4Network | IPv6Network:
    if not isinstance(value, str):
        raise ValueError('must be text, such as "10.0.0.0/24"')
    network = ipaddress.ip_network(value)
    if network.prefixlen == 0:
        raise ValueError(f"{network} covers every address")
    return network


Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]


class AliasSpec(Frozen):
    """The port of one alias, and the weights of its servers where they differ."""

    port: int = Field(gt=0, lt=65536, description="port for clients of the alias")
    weights: dict[str, Weight] = Field(
        default_factory=dict, description='"host/instance" -> weight, 0 to 100; 100 if unset'
    )
    may_differ: tuple[Difference, ...] = Field(
        default=(),
        description="what its servers may differ in, such as context; a client cannot know which "
        "of them answers",
    )


class GatewaySpec(Frozen):
    """One OpenAI-compatible address for each alias, in front of its instances."""

    aliases: dict[str, AliasSpec] = Field(
        description="model name in the API -> port in front of the instances that serve it"
    )
    address: str = Field(default="127.0.0.1", description="address to listen on")
    metrics_port: int | None = Field(
        default=8404,
        gt=0,
        lt=65536,
        description="port of HAProxy's metrics, for Prometheus; None: none",
    )
    tls_certificate: str | None = Field(
        default=None, description="PEM file with chain and key, on the controller"
    )
    trusted_networks: tuple[Network, ...] = Field(
        default=(),
        description="networks without eavesdropping or spoofing, for plain HTTP to servers",
    )

    @field_validator("aliases")
    @classmethod
    def _some(cls, aliases: dict[str, AliasSpec]) -> dict[str, AliasSpec]:
        if not aliases:
            raise ValueError("needs at least one alias")
        return aliases

    @field_validator("address")
    @classmethod
    def _numeric(cls, address: str) -> str:
        return str(ipaddress.ip_address(address))

    def trusts(self, address: str) -> bool:
        """Whether keys and prompts may go to ``address``: never to a name, which DNS resolves."""
        if not is_numeric(address):
            return False
        return any(ipaddress.ip_address(address) in network for network in self.trusted_networks)


def is_numeric(address: str) -> bool:
    """Whether an address is an IP address, not a name."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether an address is a loopback IP address."""
    return is_numeric(address) and ipaddress.ip_address(address).is_loopback
