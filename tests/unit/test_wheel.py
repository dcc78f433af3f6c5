"""The installed product: a wheel, a fleet's own folder, and commands in it."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from corral.inventory.hosts import parse_host
from corral.planning.load import load_planner
from tests.installed import Installed, build_wheel, install
from tests.samples import EXAMPLES, ROOT

pytestmark = pytest.mark.slow

HOST = {"instances": [{"name": "chat", "profile": "tiny-chat", "port": 8001}]}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture
def fleet(installed: Installed, tmp_path: Path) -> Path:
    """A new fleet with one host, whose model and engine are locked."""
    done = installed.run("corral", "init", "my-fleet", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "my-fleet"
    (folder / "inventories" / "prod.py").write_text(f"servers = [('node-1', {HOST!r})]\n")
    shutil.copy(EXAMPLES / "corral.lock", folder)
    return folder


def test_the_wheel_has_no_common_names_at_its_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"corral", "corral_shared"}


def test_the_wheel_has_all_that_a_deploy_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("catalog", "deploys", "facts", "files", "operations", "templates"):
        files = [p for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix != ".pyc"]
        assert files
        for file in files:
            assert f"corral/bundle/{file.relative_to(ROOT).as_posix()}" in names
    assert not [name for name in names if "inventories" in name or name.endswith(".pyc")]


def test_a_new_fleet_has_its_files_and_is_a_repository(fleet: Path) -> None:
    files = {p.relative_to(fleet).as_posix() for p in fleet.rglob("*") if p.is_file()}
    assert {name for name in files if not name.startswith(".git/")} == {
        ".gitignore", "README.md", "catalog/README.md", "config.py", "corral.lock", "deploy.py",
        "inventories/prod.py",
    }  # fmt: skip
    assert len((fleet / "README.md").read_text().splitlines()) == 10
    assert (fleet / ".git").is_dir()


def test_a_fleet_plans_what_the_checkout_plans(installed: Installed, fleet: Path) -> None:
    done = installed.run("corral", "plan", "node-1", "--json", folder=fleet)
    assert done.returncode == 0, done.stderr
    planned = load_planner(EXAMPLES).plan_host(parse_host("node-1", HOST))
    found = json.loads(done.stdout)["instances"][0]
    assert found["generation"] == planned.instances[0].generation
    assert found["unit_text"] == planned.instances[0].unit_text
    assert done.stderr == ""


def test_an_own_entry_wins_extends_what_it_replaces_and_says_so(
    installed: Installed, fleet: Path
) -> None:
    own = fleet / "catalog" / "profiles" / "tiny-chat.toml"
    own.parent.mkdir()
    own.write_text('extends = "tiny-chat"\nslots = 3\n')
    done = installed.run("corral", "plan", "node-1", "--json", folder=fleet)
    assert json.loads(done.stdout)["instances"][0]["slots"] == 3
    assert "catalog/profiles/tiny-chat.toml of this fleet counts instead of Corral's" in done.stderr
    own.write_text('extends = "tiny-chat"\nslots = 0\nthreads = 0\n')
    refused = installed.run("corral", "plan", "node-1", folder=fleet)
    assert refused.returncode == 1
    assert refused.stderr.startswith("catalog/profiles/tiny-chat.toml: ") or (
        "\ncatalog/profiles/tiny-chat.toml: " in refused.stderr
    )
    own.write_text('extends = "tiny-chat"\ncontext_tokens_per_slot = 9000000\nslots = 1\n')
    refused = installed.run("corral", "plan", "node-1", folder=fleet)
    source = "context_tokens_per_slot = 9000000 comes from catalog/profiles/tiny-chat.toml"
    assert source in refused.stderr


def test_hosts_of_the_products_examples_are_not_the_fleets(
    installed: Installed, fleet: Path
) -> None:
    for name in ("desk-01", "lab-1"):
        done = installed.run("corral", "plan", name, folder=fleet)
        assert done.returncode == 1
        assert f"{name}: no such host or instance" in done.stderr
    checked = installed.run("corral", "lock", "--check", folder=fleet)
    assert (checked.returncode, checked.stdout) == (
        0,
        "corral.lock has all entries of 1 host\n",
    )


def test_pyinfra_runs_the_products_checks_and_stages(installed: Installed, fleet: Path) -> None:
    command = ("inventories/prod.py", "deploy.py", "-y", "--limit", "node-2")
    done = installed.run("pyinfra", *command, folder=fleet)
    assert done.returncode == 1
    assert "--limit node-2: no such host or group" in done.stderr + done.stdout


def test_the_commands_of_a_fleet_are_those_of_the_product(
    installed: Installed, fleet: Path
) -> None:
    inside = installed.run("corral", "--help", folder=fleet).stdout
    outside = installed.run("corral", "--help", folder=fleet.parent).stdout
    assert inside == outside
    assert "  rollout " in inside
    assert "  lab " not in inside
    outside_plan = installed.run("corral", "plan", "node-1", folder=fleet.parent)
    assert "`corral init FOLDER`" in outside_plan.stderr


def test_init_finishes_what_was_begun_and_changes_no_other_file(
    installed: Installed, fleet: Path
) -> None:
    fresh = fleet.parent / "fresh"
    assert installed.run("corral", "init", "fresh", folder=fleet.parent).returncode == 0
    (fresh / "deploy.py").unlink()
    assert installed.run("corral", "init", ".", folder=fresh).returncode == 0
    assert (fresh / "deploy.py").read_text() == (fleet / "deploy.py").read_text()
    (fresh / "deploy.py").unlink()
    before = (fleet / "inventories" / "prod.py").read_text()
    refused = installed.run("corral", "init", str(fleet), folder=fleet.parent)
    assert refused.returncode == 1
    assert "files of other content: corral.lock, inventories/prod.py" in refused.stderr
    assert (fleet / "inventories" / "prod.py").read_text() == before
