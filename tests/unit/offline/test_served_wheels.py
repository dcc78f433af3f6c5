"""A Python environment from a served bundle: uv finds the locked wheels there, and only those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.offline.routes import Routes
from corral.offline.serve import serving
from corral.offline.verify import Opened, prove
from lab.wheel_index import Index
from tests.unit.engines.test_python_environment import installed
from tests.unit.engines.test_third_engine import made as made
from tests.unit.engines.test_third_engine import registered as registered
from tests.unit.engines.test_third_engine import served as served
from tests.unit.engines.test_third_engine import spec as spec
from tests.unit.engines.test_third_engine import uv as uv
from tests.unit.offline import made as bundles

pytestmark = pytest.mark.slow


def test_an_environment_is_installed_from_a_served_bundle(
    spec: dict[str, Any], made: Path, served: Index, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "proved"))
    files = {f"wheels/{path.name}": path.read_bytes() for path in served.folder.glob("*.whl")}
    bundles.write(tmp_path / "disk", files)
    opened, lines = Opened(tmp_path / "disk"), list[str]()
    routes = Routes([(opened, prove(opened, bundles.quiet))])
    with serving("127.0.0.1", 0, routes, lines.append) as url:
        spec["artifact"]["index"] = f"{url}/simple"
        staging = installed(spec, made)
    assert (staging / "bin/python").exists()
    assert list(staging.rglob("echo_engine.py"))
    assert any(f"/wheels/{made.name} 200" in line for line in lines)
    assert served.asked == []
