"""The lab itself: bare hosts, strict ssh, a second lab beside it, and nothing left behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import locks, processes
from tests.lab.test_reach import another_host_key
from tests.lab.traces import running, traces
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import wait_for
from tests.lab.workspace import Workspace


@pytest.fixture(scope="module")
def neighbour(bare_lab: Workspace) -> Iterator[Workspace]:
    """A second checkout without a lab; leftovers of a killed run are removed first."""
    second = Workspace(Path(f"{bare_lab.path}-second"))
    shutil.rmtree(second.path, ignore_errors=True)
    shutil.copytree(bare_lab.path, second.path)
    put_down(second)
    yield second
    put_down(second)
    shutil.rmtree(second.path)


def put_down(lab: Workspace) -> None:
    done = lab.corral("lab", "down")
    assert done.returncode == 0, said(done)


def put_up(lab: Workspace) -> None:
    done = lab.corral("lab", "up", "--hosts", "1")
    assert done.returncode == 0, said(done)


def kill_half_way(lab: Workspace) -> None:
    """Kill a `lab up` that has started to boot its host."""
    host = lab.layout.run / "lab-1.json"
    up = lab.start_corral("lab", "up", "--hosts", "1", log=lab.path / "up.log")
    wait_for(host.exists, "the host starts")
    assert up.poll() is None, "`lab up` ended before it was killed"
    up.kill()
    up.wait()


def pids(lab: Workspace) -> list[int]:
    return [record.pid for record in processes.recorded(lab.layout.run).values()]


def test_a_lab_that_was_killed_half_way_is_put_away_whole(neighbour: Workspace) -> None:
    kill_half_way(neighbour)
    left = pids(neighbour)
    assert running(left)
    assert {"links", "packet rules", "processes", "files"} <= traces(neighbour.layout).keys()
    put_down(neighbour)
    assert running(left) == []
    assert traces(neighbour.layout) == {}


def test_a_lab_that_was_killed_half_way_comes_up_again(neighbour: Workspace) -> None:
    kill_half_way(neighbour)
    put_up(neighbour)
    assert "running" in neighbour.corral("lab", "list").stdout


def test_two_labs_run_beside_each_other(neighbour: Workspace, bare_lab: Workspace) -> None:
    put_up(neighbour)
    ours, theirs = (lab.on("lab-1", "cat /etc/machine-id") for lab in (bare_lab, neighbour))
    assert ours != theirs
    assert not bare_lab.layout.subnet.overlaps(neighbour.layout.subnet)
    for lab in (bare_lab, neighbour):
        url = f"{lab.layout.hub_url}/api/models/corral-lab/Tiny-GLM-MoE-GGUF"
        assert "corral-lab" in lab.on("lab-1", f"curl --silent --show-error --fail {url}")


def test_a_host_boots_bare(neighbour: Workspace) -> None:
    put_up(neighbour)
    programs = "for p in gcc g++ cc cmake ninja git ccache aria2c pip pip3; do command -v $p; done"
    assert neighbour.try_on("lab-1", programs).stdout == ""
    assert neighbour.on("lab-1", "command -v python3") == "/usr/bin/python3"
    packages = neighbour.on("lab-1", "python3 -c 'import site; print(*site.getsitepackages())'")
    listed = neighbour.on("lab-1", f"find {packages} -name '*.dist-info' 2>/dev/null || true")
    assert listed == ""
    assert neighbour.on("lab-1", "systemctl --failed --no-legend") == ""


def test_only_the_host_described_with_a_gpu_has_nvidia_smi(bare_lab: Workspace) -> None:
    have = {
        host: bare_lab.try_on(host, "command -v nvidia-smi").returncode == 0
        for host in ("lab-1", "lab-2", "lab-3")
    }
    assert have == {"lab-1": False, "lab-2": False, "lab-3": True}


def test_a_host_with_another_key_than_known_is_refused(bare_lab: Workspace) -> None:
    assert bare_lab.try_on("lab-2", "true").returncode == 0
    with another_host_key(bare_lab, 2):
        refused = bare_lab.try_on("lab-2", "true")
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_a_second_lab_up_is_refused_and_told_who_is_first(neighbour: Workspace) -> None:
    with locks.refuse_others(neighbour.layout.lock_file, "corral lab up"):
        refused = neighbour.corral("lab", "up", "--hosts", "1")
    assert_refused(refused, "is in use: corral lab up, process", "wait for it to end")


def test_a_lab_that_is_put_down_leaves_nothing(neighbour: Workspace, bare_lab: Workspace) -> None:
    put_up(neighbour)
    ran = pids(neighbour)
    assert running(ran) == ran
    assert "control groups" in traces(neighbour.layout)
    put_down(neighbour)
    assert running(ran) == []
    assert traces(neighbour.layout) == {}
    assert "no lab is up" in neighbour.corral("lab", "list").stdout
    assert bare_lab.on("lab-1", "echo here") == "here"
