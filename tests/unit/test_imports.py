"""The import rule: deploy.py -> deploys -> operations, facts -> corral; corral knows none."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.plan.gateway import GatewayPlan, Member, Pool
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.release import ReleasePlan
from tests.samples import ROOT

pytestmark = pytest.mark.slow

OURS = {"corral", "deploys", "operations", "facts", "lab", "tests", "corral_host", "corral_shared"}
# Who may import whom, beside themselves.
MAY = {
    "deploy.py": {"deploys"},
    "config.py": {"deploys"},
    "deploys": {"operations", "facts", "corral", "corral_shared"},
    "operations": {"facts", "corral", "corral_shared"},
    "facts": {"corral", "corral_shared"},
    "corral": {"corral_shared"},
    "lab": {"corral", "corral_shared"},
    "files/corral_host": {"corral_shared"},
    "files/corral_shared": set(),
}
WITHOUT_PYINFRA = ("corral", "lab", "files/corral_host")


def imported(text: str) -> Iterator[str]:
    """Top-level names that a module imports, also inside of functions."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            yield str(node.module).split(".")[0]


def modules(part: str) -> list[Path]:
    path = ROOT / part
    found = [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert found, f"{part} holds no module"
    return found


@pytest.mark.parametrize("part", MAY)
def test_a_layer_imports_only_those_below_it(part: str) -> None:
    allowed = MAY[part] | {Path(part).stem}
    for path in modules(part):
        assert set(imported(path.read_text())) & OURS <= allowed, path


@pytest.mark.parametrize("part", WITHOUT_PYINFRA)
def test_pyinfra_stays_out_of_the_domain(part: str) -> None:
    for path in modules(part):
        assert "pyinfra" not in set(imported(path.read_text())), path


def test_only_questions_to_a_hub_and_load_tests_go_online() -> None:
    online = {"huggingface_hub", "requests", "httpx", "httpx2", "urllib", "http", "socket"}
    users = {p.name for p in modules("corral") if online & set(imported(p.read_text()))}
    # hub_token.py asks nobody: it reads where `hf auth login` keeps what it was given.
    # outside.py asks the inventory's own hosts, as anybody on their network could; completions.py
    # sends load tests to its servers.
    hub = {"hub.py", "hub_requests.py", "hub_token.py", "ranges.py"}
    # images.py reads the images of a site's own once, for the lock.
    # alerts.py asks the Prometheus that the operator names; page_server.py answers browsers.
    page = {"alerts.py", "page_server.py"}
    # fetch.py and packages.py fill a bundle, serve.py answers hosts; the others read addresses.
    # deploy.py looks whether it is served.
    bundle = {"fetch.py", "packages.py", "serve.py", "deploy.py", "routes.py", "wheels.py"}
    bundle |= {"bundle.py", "by_ssh.py"}
    # release.py quotes a name for an address; names.py reads the port of one.
    others = {"images.py", "outside.py", "completions.py", "release.py", "names.py"}
    assert users == {*hub, *page, *bundle, *others}


def test_the_helper_needs_nothing_but_python() -> None:
    for path in (*modules("files/corral_host"), *modules("files/corral_shared")):
        own = {"corral_host", "corral_shared"}
        foreign = set(imported(path.read_text())) - sys.stdlib_module_names - own
        assert not foreign, path


def test_inventories_hold_plain_values() -> None:
    for path in modules("tests/data/examples/inventories"):
        assert set(imported(path.read_text())) <= {"lab"}, path


def test_the_rule_sees_what_it_looks_for() -> None:
    text = "import pyinfra.api\nfrom deploys.base import base\ndef f():\n    import lab.cli\n"
    assert set(imported(text)) == {"pyinfra", "deploys", "lab"}


PLANNED = {
    field
    for plan in (HostPlan, InstancePlan, ReleasePlan, GatewayPlan, Pool, Member)
    for field in plan.model_fields
}


def changed_by_copy(text: str) -> Iterator[str]:
    """Fields that a module changes by ``model_copy``, where they are written out."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "model_copy":
            given = [node for key in node.keywords for node in ast.walk(key.value)]
            written = [key for one in given if isinstance(one, ast.Dict) for key in one.keys]
            yield from (str(key.value) for key in written if isinstance(key, ast.Constant))


@pytest.mark.parametrize("part", ["corral", "deploys", "operations", "facts"])
def test_a_plan_is_decided_in_planning_alone(part: str) -> None:
    for path in modules(part):
        inside = path.is_relative_to(ROOT / "corral" / "planning")
        # What has these names without being a plan: of profiles and of estimates.
        other = {"context_tokens_per_slot", "slots"} if "engines" in path.parts else set()
        assert inside or not set(changed_by_copy(path.read_text())) & PLANNED - other, path


def test_that_rule_sees_a_patch() -> None:
    text = 'a.model_copy(update={"gateway": 1})\nb.model_copy(update={**c, "pools": 2})'
    assert set(changed_by_copy(text)) == {"gateway", "pools"}
