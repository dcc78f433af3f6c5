"""What hosts need from a bundle, read from their plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.inventory.hosts import Inventory
from corral.offline import needs as module
from corral.offline.needs import Needs, needs_of, sources_name
from tests.samples import CHAT, host, planner
from tests.unit.planning.test_grafana import OWN as GRAFANA

PLATFORM = "debian-12"


@pytest.fixture
def needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Needs:
    monkeypatch.setattr(module, "this_platform", lambda: PLATFORM)
    return of_one_host(str(tmp_path))


def test_what_runs_images_is_left_to_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "this_platform", lambda: PLATFORM)
    this = host(CHAT, runtime="apptainer")
    needed = needs_of(Inventory(path=Path("prod.py"), hosts=(this,)), planner())
    assert needed.left_out == ("a program to run images on lab-1: install it there before",)


def of_one_host(archives: str) -> Needs:
    this = host(CHAT, archives_folder=archives, bundle={"folder": "/x", "url": "http://10.20.0.1"})
    return needs_of(Inventory(path=Path("prod.py"), hosts=(this,)), planner())


def test_a_release_without_an_archive_is_built_from_upstreams_sources(needed: Needs) -> None:
    ((name, sources),) = needed.sources.items()
    assert name == sources_name("llama.cpp", sources.commit)
    assert sources.url.startswith("https://")
    assert sources.because.startswith("lab-1 builds llama.cpp ")
    assert needed.archives == ()
    assert {"cmake", "g++", "git"} <= set(needed.packages[PLATFORM][0].packages)


def test_grafana_comes_with_its_pin_and_repository_and_not_among_the_distributions_packages() -> (
    None
):
    base = planner()
    catalog = base.catalog.model_copy(update={"programs": {"grafana": GRAFANA}})
    this = host(CHAT, monitoring={"prometheus": {}, "grafana": {}})
    needed = needs_of(
        Inventory(path=Path("prod.py"), hosts=(this,)),
        base.model_copy(update={"catalog": catalog}),
    )
    distribution, grafana = needed.packages[PLATFORM]
    assert "prometheus" in distribution.packages
    assert "grafana" not in distribution.packages
    assert grafana.packages == ("grafana",)
    assert grafana.pins == (GRAFANA.packages,)
    assert grafana.source == GRAFANA.source
    assert grafana.catalog == "catalog/programs/grafana.toml"


def test_a_controller_of_the_hosts_distribution_is_installed_from_it_as_well(
    needed: Needs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert {"python3-venv", "minisign"} <= set(needed.packages[PLATFORM][0].packages)
    assert needed.left_out == ()
    monkeypatch.setattr(module, "this_platform", lambda: "ubuntu-24.04")
    other = of_one_host(str(tmp_path))
    assert "minisign" not in other.packages[PLATFORM][0].packages
    (sentence,) = other.left_out
    wanted = "minisign, openssh-client and python3-venv for a controller of ubuntu-24.04: "
    assert sentence.startswith(wanted)
