"""Dashboards as Grafana's own types have them: every field is known, and of its type."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from copy import deepcopy
from enum import Enum
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard

from corral.monitoring.dashboards import DASHBOARDS, dashboard_json

register_default_plugins()


def problems(document: dict[str, Any]) -> list[str]:
    """What Grafana would not take as it is meant."""
    try:
        read = GrafanaDashboard.from_json(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [f"it is not read: {error!r}"]
    again = json.loads(json.dumps(read, cls=JSONEncoder))
    return [*lost("", document, again), *of_other_types("", read)]


def lost(path: str, sent: Any, read: Any) -> Iterator[str]:
    """Fields that the types do not have, or read as something else."""
    if isinstance(sent, dict) and isinstance(read, dict):
        for name, one in sent.items():
            yield from lost(f"{path}.{name}", one, read.get(name))
    elif isinstance(sent, list) and isinstance(read, list) and len(sent) == len(read):
        for number, (one, other) in enumerate(zip(sent, read, strict=True)):
            yield from lost(f"{path}[{number}]", one, other)
    elif sent != read:
        yield f"{path} is unknown"


def of_other_types(path: str, read: Any) -> Iterator[str]:
    """Values that are not what the annotations of their class say."""
    if isinstance(read, list):
        for number, one in enumerate(read):
            yield from of_other_types(f"{path}[{number}]", one)
        return
    if isinstance(read, Enum) or not type(read).__module__.startswith("grafana_foundation_sdk"):
        return
    for name, kind in typing.get_type_hints(type(read)).items():
        value = getattr(read, name)
        if not fits(value, kind):
            yield f"{path}.{name} = {value!r} is no {kind}"
        yield from of_other_types(f"{path}.{name}", value)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; of containers each element is."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (typing.Any, object):
        return True
    if origin is typing.Union:
        return any(fits(value, one) for one in arguments)
    if origin is list:
        return isinstance(value, list) and all(fits(one, arguments[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict)
    if origin is typing.Literal:
        return value in arguments
    if isinstance(kind, type) and issubclass(kind, Enum):
        return isinstance(value, kind) or value in [one.value for one in kind]
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.name)
def test_every_field_is_one_of_grafana(dashboard: Any) -> None:
    assert problems(json.loads(dashboard_json(dashboard))) == []


@pytest.mark.parametrize(
    ("place", "field", "value"),
    [
        ((), "titel", "x"),
        ((), "title", 7),
        (("time",), "until", "now"),
        (("panels", 0), "typ", "timeseries"),
        (("panels", 0), "title", ["x"]),
        (("panels", 0, "gridPos"), "w", "12"),
        (("panels", 0, "gridPos"), "width", 12),
        (("panels", 0, "fieldConfig", "defaults"), "units", "bytes"),
        (("panels", 0, "targets", 0), "legend", "x"),
        (("panels", 0, "targets", 0), "expr", 7),
        (("templating", "list", 1), "refresh", 9),
        (("templating", "list", 1), "type", "choice"),
        (("annotations", "list", 0), "query", "x"),
        (("annotations", "list", 0), "enable", "yes"),
    ],
)
def test_a_wrong_field_is_noticed(place: tuple[Any, ...], field: str, value: Any) -> None:
    document = json.loads(dashboard_json(DASHBOARDS[1]))
    changed = deepcopy(document)
    at = changed
    for one in place:
        at = at[one]
    at[field] = value
    assert problems(document) == []
    assert problems(changed)
