"""A Python environment on a real host, and what goes wrong while it is made."""

from __future__ import annotations

from lab.wheel_index import Index
from tests.lab.test_third_engine import HOST, INVENTORY, ask, deploy
from tests.lab.test_third_engine import index as index
from tests.lab.test_third_engine import lab as lab
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import wait_for
from tests.lab.workspace import Workspace
from tests.third_engine import wheel
from tests.wheels import flip

RELEASES = "/opt/corral/engines"
ENGINES = f"{RELEASES}/echo"


def installed(lab: Workspace) -> list[str]:
    """Releases on the host, and staging folders."""
    names = lab.on(HOST, f"ls -A {ENGINES} 2>/dev/null | cat").split()
    return [name for name in names if not name.startswith(".uv-")]


def test_a_wheel_with_a_flipped_bit_installs_nothing(lab: Workspace, index: Index) -> None:
    own = index.folder / wheel.NAME
    content = own.read_bytes()
    flip(own)
    try:
        assert_refused(deploy(lab), "other bytes than the lock names", "Nothing was installed")
    finally:
        own.write_bytes(content)
    assert installed(lab) == []


def test_an_index_that_refuses_is_named(lab: Workspace, index: Index) -> None:
    index.refuses = 503
    try:
        assert_refused(deploy(lab), "the index cannot be reached, or refuses", index.url)
    finally:
        index.refuses = 0
    assert installed(lab) == []


def test_a_disk_that_is_too_small_is_named_before_anything_is_fetched(
    lab: Workspace, index: Index
) -> None:
    index.asked.clear()
    large = f'python = ">=3.9"\nunpacked_bytes = {2**39}\n'
    with lab.edited("catalog/engines/echo.toml", 'python = ">=3.9"\n', large):
        assert_refused(deploy(lab))
    assert not [path for path in index.asked if path.endswith(wheel.NAME)]
    assert installed(lab) == []


def test_a_disk_that_fills_up_while_uv_unpacks_is_named(lab: Workspace, index: Index) -> None:
    index.hold(wheel.NAME)
    small = f'python = ">=3.9"\nunpacked_bytes = {2**26}\n'
    lab.on(HOST, f"mkdir -p {RELEASES} && mount -t tmpfs -o size=4g tmpfs {RELEASES}")
    try:
        with lab.edited("catalog/engines/echo.toml", 'python = ">=3.9"\n', small):
            deploying = lab.start_deploy(inventory=INVENTORY)
            wait_for(index.held.is_set, "the wheel is on its way")
            used = lab.on(HOST, f"df --output=used {RELEASES} | tail -1").strip()
            lab.on(HOST, f"mount -o remount,size={used}k {RELEASES}")
            index.release()
            output = " ".join(deploying.communicate()[0].split())
        assert deploying.returncode != 0, output
        for text in ("the disk is full", "Nothing was installed", "Next: free space there"):
            assert text in output, output
        assert "Traceback" not in output
        assert installed(lab) == []
    finally:
        index.release()
        lab.on(HOST, f"umount {RELEASES}")


def test_a_killed_deploy_does_not_stop_the_installation(lab: Workspace, index: Index) -> None:
    index.hold(wheel.NAME)
    killed = lab.start_deploy(inventory=INVENTORY)
    wait_for(index.held.is_set, "the wheel is on its way")
    killed.kill()
    killed.wait()
    index.release()
    again = deploy(lab)
    assert again.returncode == 0, said(again)
    assert ask(lab, "Hello again.") == "You said: Hello again."
    (key,) = installed(lab)
    # What was fetched went with success.
    assert lab.on(HOST, f"ls -A {ENGINES}") == key
