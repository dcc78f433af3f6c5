"""A generation with its own chat template, which the server's user must be able to read."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from corral.paths import HostPaths
from corral.plan.instance import INSTANCE_FILES, InstancePlan
from corral.remote.helper_archive import archive
from tests.samples import CHAT, ROOT, host, planner
from tests.unit.helper_modules import helper_module

TEXT = "one two three\n"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}\n"


@pytest.fixture
def instance(tmp_path: Path) -> InstancePlan:
    paths = HostPaths(state=str(tmp_path / "state"))
    base = planner(paths=paths, chat_template_file="own.jinja")
    known = base.catalog.model_copy(update={"chat_templates": {"own.jinja": TEMPLATE}})
    return base.model_copy(update={"catalog": known}).plan_host(host(CHAT)).instances[0]


def stage(tmp_path: Path, instance: InstancePlan) -> None:
    """Stage as a root whose umask hides everything."""
    helper = tmp_path / "corral_host.pyz"
    helper.write_bytes(archive(ROOT / "files" / "corral_host"))
    subprocess.run(
        [sys.executable, "-I", helper, "stage"],
        input=instance.model_dump_json(), text=True, check=True, umask=0o077,
    )  # fmt: skip


def test_the_template_lies_where_the_argument_says_for_everybody_to_read(
    tmp_path: Path, instance: InstancePlan
) -> None:
    stage(tmp_path, instance)
    path = Path(instance.argv[instance.argv.index("--chat-template-file") + 1])
    assert path.read_text() == TEMPLATE
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    instances = tmp_path / "state" / "instances"
    folder = path.parent
    while folder != instances.parent:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755, folder
        folder = folder.parent


def test_without_a_template_none_is_written(tmp_path: Path) -> None:
    plain = planner(paths=HostPaths(state=str(tmp_path / "state"))).plan_host(host(CHAT))
    stage(tmp_path, plain.instances[0])
    folder = Path(plain.instances[0].folder) / "generations" / plain.instances[0].generation
    assert sorted(path.name for path in folder.iterdir()) == ["plan.json", "unit"]


@pytest.fixture
def measured(tmp_path: Path) -> InstancePlan:
    """With a reference text for the gate."""
    paths = HostPaths(state=str(tmp_path / "state"))
    wanted = {"text": "wiki.txt", "limit": 9}
    base = planner(paths=paths, perplexity=wanted)
    engine = base.catalog.engines["llama.cpp"].model_copy(update={"targets": ("llama-perplexity",)})
    changes = {"references": {"wiki.txt": TEXT}, "engines": {"llama.cpp": engine}}
    known = base.catalog.model_copy(update=changes)
    return base.model_copy(update={"catalog": known}).plan_host(host(CHAT)).instances[0]


def is_whole(instance: InstancePlan) -> bool:
    folder = Path(instance.folder) / "generations" / instance.generation
    plan = instance.model_dump(mode="json", exclude=set(INSTANCE_FILES))
    whole: bool = helper_module("instance.state").generation_is_whole(folder, plan)
    return whole


def test_a_reference_text_is_there_before_the_generation_counts_as_staged(
    tmp_path: Path, measured: InstancePlan
) -> None:
    assert not is_whole(measured)
    stage(tmp_path, measured)
    assert measured.gate.perplexity is not None
    path = Path(measured.gate.perplexity.text_path)
    assert path.read_text() == TEXT
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert is_whole(measured)
    path.unlink()
    assert not is_whole(measured)
