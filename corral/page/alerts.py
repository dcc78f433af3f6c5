"""Alerts that fire now, from a Prometheus or an Alertmanager."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from corral_shared.text import printable_line
from pydantic import ConfigDict, TypeAdapter, ValidationError

from corral.errors import CorralError
from corral.page.document import AlertPage
from corral.schema import Frozen

_SECONDS = 10
_MOST_BYTES = 8 * 2**20
_MOST_ALERTS = 200
_PORTS = {"http": 80, "https": 443}
_FIRING = ("firing", "active")


class _Theirs(Frozen):
    model_config = ConfigDict(extra="ignore")


class _Status(_Theirs):
    state: str = "active"


class _Alert(_Theirs):
    """An alert of either program: Prometheus has ``state``, Alertmanager ``status``."""

    labels: dict[str, str]
    annotations: dict[str, str] = {}
    state: str = ""
    status: _Status = _Status()
    activeAt: str = ""  # noqa: N815 - theirs
    startsAt: str = ""  # noqa: N815 - theirs


class _Data(_Theirs):
    alerts: tuple[_Alert, ...]


class _Prometheus(_Theirs):
    data: _Data


# Of Alertmanager first: a Prometheus answers 404 to it.
_ROUTES: dict[str, TypeAdapter[Any]] = {
    "/api/v2/alerts": TypeAdapter(tuple[_Alert, ...]),
    "/api/v1/alerts": TypeAdapter(_Prometheus),
}


class AlertSource:
    """A Prometheus or an Alertmanager, by its address.

    Raises CorralError for an address that is none.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._scheme, self._host, self._port, self._path = _parts(self.url)

    def firing(self) -> tuple[AlertPage, ...]:
        """Alerts that fire now, those that page first. Raises CorralError."""
        for route, shape in _ROUTES.items():
            status, body = self._get(route)
            if status == http.HTTPStatus.OK:
                return _firing(self._read(shape, body))
            if status not in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE):
                raise self._error(f"answers {status} to {route}")
        raise self._error("is neither a Prometheus nor an Alertmanager")

    def _get(self, route: str) -> tuple[int, bytes]:
        link = self._link()
        try:
            link.request("GET", f"{self._path}{route}", headers={"Accept": "application/json"})
            answer = link.getresponse()
            body = answer.read(_MOST_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise self._error(f"does not answer: {printable_line(error)}") from error
        finally:
            link.close()
        if len(body) > _MOST_BYTES:
            raise self._error(f"answers more than {_MOST_BYTES >> 20} MiB")
        return answer.status, body

    def _link(self) -> http.client.HTTPConnection:
        if self._scheme == "http":
            return http.client.HTTPConnection(self._host, self._port, timeout=_SECONDS)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=_SECONDS, context=context
        )

    def _read(self, shape: TypeAdapter[Any], body: bytes) -> tuple[_Alert, ...]:
        try:
            found = shape.validate_json(body)
        except ValidationError as error:
            raise self._error("answers something else than alerts") from error
        alerts: tuple[_Alert, ...] = found.data.alerts if isinstance(found, _Prometheus) else found
        return alerts

    def _error(self, what: str) -> CorralError:
        return CorralError(self.url, what, "check the address that --alerts names")


def _parts(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path. Raises CorralError."""
    try:
        found = urlsplit(url)
        port = found.port or _PORTS.get(found.scheme, 0)
    except ValueError:
        found, port = urlsplit(""), 0
    odd = found.username or found.query or found.fragment
    if not (found.scheme in _PORTS and found.hostname and port) or odd or not url.isprintable():
        step = "give one such as http://127.0.0.1:9090"
        raise CorralError(printable_line(url), "is no address of http or https", step)
    return found.scheme, found.hostname, port, found.path


def _firing(alerts: tuple[_Alert, ...]) -> tuple[AlertPage, ...]:
    now = [one for one in alerts if (one.state or one.status.state) in _FIRING]
    rows = sorted(map(_row, now), key=lambda one: (one.severity != "page", one.name, one.where))
    return tuple(rows[:_MOST_ALERTS])


def _row(alert: _Alert) -> AlertPage:
    labels, notes = alert.labels, alert.annotations
    severity = labels.get("severity")
    return AlertPage(
        name=labels.get("alertname", "alert"),
        where=_where(labels),
        what=notes.get("summary") or notes.get("description", ""),
        command=notes.get("command", ""),
        severity="page" if severity in ("page", "critical") else "ticket",
        since=alert.activeAt or alert.startsAt,
    )


def _where(labels: Mapping[str, str]) -> str:
    named = [labels[name] for name in ("host", "instance") if labels.get(name)]
    return "/".join(dict.fromkeys(named))
