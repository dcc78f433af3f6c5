"""The files of an export: a configuration with its targets, rules and keys. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal

from corral.monitoring.dashboards import DASHBOARDS, dashboard_json
from corral.monitoring.rules import rules
from corral.monitoring.scrape import HOSTS, Target
from corral.monitoring.yaml_text import yaml_text

Form = Literal["prometheus", "vmagent"]
RULES = "rules/corral.yml"
SCRAPING = {"scrape_interval": "15s"}
_BEGIN = "# Written by Corral for all hosts of an inventory. Paths are relative to this file.\n"


def files(form: Form, targets: Iterable[Target]) -> dict[str, str]:
    """Path below the folder -> text; keys are not among them."""
    found = list(targets)
    # vmagent leaves rules to vmalert, which reads the same file, and refuses to start on them.
    own: dict[str, Any] = {"rule_files": [RULES]} if form == "prometheus" else {}
    return {
        f"{form}.yml": configuration(found, key_file, own=own),
        **target_lists(found),
        **{f"dashboards/{one.name}.json": dashboard_json(one) for one in DASHBOARDS},
        RULES: rules_text(),
    }


def configuration(
    targets: Iterable[Target],
    key_of: Callable[[Target], str],
    *,
    own: Mapping[str, Any],
    times: Mapping[str, str] = SCRAPING,
) -> str:
    """The configuration of a Prometheus; ``key_of``: path of a target's key; ``own``: more keys."""
    jobs = [_job(job, found[0], key_of) for job, found in _by_job(targets).items()]
    return _BEGIN + yaml_text({"global": times, **own, "scrape_configs": jobs})


def target_lists(targets: Iterable[Target]) -> dict[str, str]:
    """Path below the folder -> targets of one job, for file_sd."""
    return {f"targets/{job}.json": _listed(found) for job, found in _by_job(targets).items()}


def rules_text() -> str:
    """The rules file."""
    return _BEGIN + yaml_text(rules())


def key_file(target: Target) -> str:
    """Path of a target's key below the folder."""
    return f"keys/{target.job}"


def keyed(targets: Iterable[Target]) -> Mapping[str, Target]:
    """Path of each key file below the folder -> a target that needs it."""
    return {key_file(one): one for one in targets if one.key}


def _sorted(targets: Iterable[Target]) -> list[Target]:
    return sorted(targets, key=lambda one: (one.job, one.address))


def _by_job(targets: Iterable[Target]) -> dict[str, list[Target]]:
    return {job: list(found) for job, found in groupby(_sorted(targets), attrgetter("job"))}


def _job(job: str, first: Target, key_of: Callable[[Target], str]) -> dict[str, Any]:
    found: dict[str, Any] = {"job_name": job, "scheme": first.scheme}
    if job == HOSTS:
        # Figures of an instance keep its name in the label `instance`.
        found["honor_labels"] = True
    if first.key:
        found["authorization"] = {"credentials_file": key_of(first)}
    return {**found, "file_sd_configs": [{"files": [f"targets/{job}.json"]}]}


def _listed(targets: Iterable[Target]) -> str:
    groups = [{"targets": [one.address], "labels": one.labels} for one in targets]
    return json.dumps(groups, indent=1) + "\n"
