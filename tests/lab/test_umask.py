"""A root whose umask hides everything: the host serves, and earlier hidden files are corrected."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.untouched import said
from tests.lab.workspace import Workspace

PROFILE = "catalog/profiles/tiny-long.toml"
VALUE = "context_tokens_per_slot = 8192"
HIDES = "umask 077"
# The state of a new host under such a umask after a helper of an earlier version.
HIDE = (
    "chmod go= /opt/corral /opt/corral/engines /opt/corral/engines/* /var/lib/corral"
    " /var/lib/corral/models && find /opt/corral/engines /var/lib/corral/models -type f"
    " -exec chmod go= {} + && systemctl stop corral-tiny-long"
)


@pytest.fixture
def careful(fleet: Workspace) -> Iterator[Workspace]:
    """A fleet with a host whose root has such a umask, also over ssh."""
    fleet.on("lab-1", f"cp /root/.bashrc /root/.bashrc.saved; echo '{HIDES}' >/root/.bashrc")
    assert fleet.on("lab-1", "umask") == "0077"
    yield fleet
    fleet.on("lab-1", "mv /root/.bashrc.saved /root/.bashrc")


def test_what_such_a_root_left_is_healed_and_changes_serve(careful: Workspace) -> None:
    careful.on("lab-1", HIDE)
    healed = careful.deploy()
    assert healed.returncode == 0, said(healed)
    assert careful.pid("lab-1", "tiny-long")
    with careful.edited(PROFILE, VALUE, VALUE.replace("8192", "4096")):
        changed = careful.deploy()
        assert changed.returncode == 0, said(changed)
    unit = "/etc/systemd/system/corral-tiny-long.service"
    assert careful.on("lab-1", f"stat --format=%a {unit}") == "644"


def test_a_host_that_is_new_under_it_serves(careful: Workspace) -> None:
    """All that Corral made is removed; the next deploy makes it again, under that umask."""
    careful.on(
        "lab-1",
        "systemctl stop 'corral-tiny-*'; rm -rf /opt/corral /var/lib/corral /usr/local/lib/corral"
        " /etc/corral /etc/systemd/system/corral-tiny-* && systemctl daemon-reload",
    )
    made = careful.deploy()
    assert made.returncode == 0, said(made)
    assert careful.pid("lab-1", "tiny-long")
    assert careful.on("lab-1", "stat --format=%a /opt/corral /var/lib/corral") == "755\n755"
