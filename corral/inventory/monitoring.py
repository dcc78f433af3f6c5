"""Monitoring of a host in an inventory: the key ``monitoring`` in its data."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    HttpUrl,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from corral.schema import Frozen

_RECEIVER = r"^[a-z0-9][a-z0-9-]{0,39}$"
_MAIL = re.compile(r"[^\s@<>\"',]+@[^\s@<>\"',]+")
_SMARTHOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}")
_WEB: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)
Wanted = Literal["all", "page", "ticket"]


def _numeric(address: str) -> str:
    return str(ipaddress.ip_address(address))


def _one_address(address: str) -> str:
    found = ipaddress.ip_address(address)
    if found.is_unspecified:
        raise ValueError(
            f"{address} is every address of the host; name one: answers go out unencrypted, to "
            "whoever reaches it"
        )
    return str(found)


def _web(url: str) -> str:
    try:
        found = _WEB.validate_python(url)
    except ValidationError as error:
        raise ValueError("is no URL of http or https") from error
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("is no URL of http or https")
    if found.username or found.password:
        raise ValueError("has a secret in it; write that to the store, and add with_token = True")
    return url


def _mail(address: str) -> str:
    if not _MAIL.fullmatch(address):
        raise ValueError(f'"{address}" is no address of e-mail')
    return address


def _smarthost(host: str) -> str:
    if not _SMARTHOST.fullmatch(host):
        raise ValueError(f'"{host}" is not HOST:PORT')
    return host


Address = Annotated[str, AfterValidator(_one_address)]
WebUrl = Annotated[str, AfterValidator(_web)]
Mail = Annotated[str, AfterValidator(_mail)]


class ReceiverSpec(Frozen):
    """Where alerts go: a web hook or e-mail. Its secret is in the key store, never here."""

    webhook_url: WebUrl | None = Field(
        default=None, description="gets each group of alerts as JSON, by POST"
    )
    with_token: bool = Field(
        default=False,
        description="sends the bearer token HOST/alerts_NAME of the key store to webhook_url",
    )
    email_to: Mail | None = Field(default=None, description="address that gets alerts by e-mail")
    email_from: Mail | None = Field(default=None, description="address that sends them")
    smarthost: Annotated[str, AfterValidator(_smarthost)] | None = Field(
        default=None, description="HOST:PORT of the mail server; it has to offer STARTTLS"
    )
    username: str | None = Field(
        default=None,
        min_length=1,
        description="login at the mail server; the password is HOST/alerts_NAME of the key store",
    )
    wants: Wanted = Field(
        default="all", description='"page": alerts alone that need somebody now; "ticket": others'
    )

    @model_validator(mode="after")
    def _one_way(self) -> ReceiverSpec:
        if (self.webhook_url is None) == (self.email_to is None):
            raise ValueError("needs either webhook_url or email_to")
        if self.webhook_url and (self.email_from or self.smarthost or self.username):
            raise ValueError("email_from, smarthost and username are of email_to")
        if self.email_to and not (self.email_from and self.smarthost):
            raise ValueError("email_to needs email_from and smarthost")
        if self.email_to and self.with_token:
            raise ValueError("with_token is of webhook_url; e-mail has username")
        return self

    @property
    def has_secret(self) -> bool:
        """Whether the key store has a secret for it."""
        return self.with_token or self.username is not None


class AlertmanagerSpec(Frozen):
    """Alertmanager beside Prometheus, with its receivers."""

    address: Address = Field(default="127.0.0.1", description="address to listen on; no keys")
    port: int = Field(default=9093, gt=0, lt=65536, description="port to listen on")
    receivers: dict[Annotated[str, Field(pattern=_RECEIVER)], ReceiverSpec] = Field(
        min_length=1, description="name -> where alerts go"
    )


class PrometheusSpec(Frozen):
    """The distribution's Prometheus on this host, for the whole inventory."""

    address: Address = Field(
        default="127.0.0.1",
        description="address to listen on, never all of them; it has no keys, so name one of a "
        "trusted network",
    )
    port: int = Field(default=9090, gt=0, lt=65536, description="port to listen on")
    retention_days: int = Field(default=30, gt=0, le=3650, description="how long it keeps figures")
    retention_gib: int = Field(
        default=10, gt=0, description="disk space for them; the oldest go first"
    )
    alertmanager: AlertmanagerSpec | None = Field(
        default=None, description="sends alerts on; without it they are shown at Prometheus alone"
    )


class GrafanaSpec(Frozen):
    """Grafana with the dashboards, for the Prometheus of this host."""

    address: Address = Field(
        default="127.0.0.1",
        description="address to listen on, never all of them; it answers without TLS",
    )
    port: int = Field(default=3000, gt=0, lt=65536, description="port to listen on")


class MonitoringSpec(Frozen):
    """node_exporter with figures of GPUs and instances, for a Prometheus to read."""

    address: Annotated[str, AfterValidator(_numeric)] = Field(
        default="127.0.0.1",
        description="address of node_exporter; it has no keys, so name one of a trusted network",
    )
    port: int = Field(default=9100, gt=0, lt=65536, description="port of node_exporter")
    rehash_gib_per_day: int | None = Field(
        default=None,
        gt=0,
        description="weights read again each day; so much that all is read in a month if unset",
    )
    prometheus: PrometheusSpec | None = Field(
        default=None, description="Prometheus on this host, for the whole inventory; {} for it"
    )
    grafana: GrafanaSpec | None = Field(
        default=None,
        description="Grafana on this host, which needs prometheus; {} for it. Its version is of "
        "catalog/programs/grafana.toml, its password HOST/grafana_admin of the key store",
    )

    @model_validator(mode="after")
    def _grafana_has_its_source(self) -> MonitoringSpec:
        if self.grafana and self.prometheus is None:
            raise ValueError('grafana shows the Prometheus of its host: add "prometheus": {}')
        return self

    @property
    def ports(self) -> dict[str, int]:
        """Program -> TCP port that it listens on."""
        found = {"node_exporter": self.port}
        if self.prometheus:
            found["Prometheus"] = self.prometheus.port
            if self.prometheus.alertmanager:
                found["Alertmanager"] = self.prometheus.alertmanager.port
        if self.grafana:
            found["Grafana"] = self.grafana.port
        return found
