"""Commands of the installed helper that need no systemd."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corral.paths import HostPaths
from corral.plan.host import HostPlan
from corral.remote.helper_archive import archive
from tests.samples import CHAT, ROOT, host, planner

KEYS = "# one\ncanary-0123456789-abcdefghij\n"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    path = tmp_path / "corral_host.pyz"
    path.write_bytes(archive(ROOT / "files" / "corral_host"))
    return path


@pytest.fixture
def planned(tmp_path: Path) -> HostPlan:
    paths = HostPaths(state=str(tmp_path / "state"), keys=str(tmp_path / "etc" / "keys"))
    return planner(paths=paths).plan_host(host(CHAT))


def run(installed: Path, *arguments: str, stdin: str = "") -> Any:
    """The helper's answer."""
    done = subprocess.run(
        [sys.executable, "-I", installed, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_file_is_roots_alone_and_whole(installed: Path, planned: HostPlan) -> None:
    path = Path(planned.instances[0].key_path)
    path.parent.mkdir(parents=True, mode=0o755)
    paths = {"key_path": str(path), "unit_path": planned.instances[0].unit_path}
    for text in ("old\n", KEYS):
        run(installed, "key", stdin=json.dumps({**paths, "keys": text}))
    assert path.read_text() == KEYS
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["chat"]


def test_a_staged_generation_holds_its_unit_and_plan(installed: Path, planned: HostPlan) -> None:
    instance = planned.instances[0]
    run(installed, "stage", stdin=instance.model_dump_json())
    folder = Path(instance.folder) / "generations" / instance.generation
    assert (folder / "unit").read_text() == instance.unit_text
    assert json.loads((folder / "plan.json").read_text())["argv"] == list(instance.argv)
    assert sorted(entry.name for entry in folder.iterdir()) == ["plan.json", "unit"]


def rows(installed: Path, planned: HostPlan, content: bytes | None) -> tuple[Any, Path]:
    """Rows of a rehash of a shard with this content, and the path of its receipt."""
    shard = planned.shards[0].model_copy(update={"sha256": hashlib.sha256(b"good").hexdigest()})
    path, receipt = Path(shard.path), Path(f"{shard.path}.receipt.json")
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
        receipt.write_text("{}")
    answer = run(installed, "rehash", planned.model_copy(update={"shards": (shard,)}).to_helper())
    return answer, receipt


def test_a_rehash_of_good_bytes_keeps_the_receipt(installed: Path, planned: HostPlan) -> None:
    ((row,), receipt) = rows(installed, planned, b"good")
    assert row["ok"] is True
    assert receipt.exists()


def test_a_rotten_shard_loses_its_receipt(installed: Path, planned: HostPlan) -> None:
    ((row,), receipt) = rows(installed, planned, b"gooe")
    assert row["ok"] is False
    assert not receipt.exists()


def test_an_absent_shard_is_told(installed: Path, planned: HostPlan) -> None:
    ((row,), _) = rows(installed, planned, None)
    assert (row["ok"], row["detail"]) == (False, "absent")
