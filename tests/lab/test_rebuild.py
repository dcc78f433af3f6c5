"""A host that lost its disk is the same again after one deploy, also when two people start it.

And if the controller is lost with it: a fresh clone and a backup serve the same bytes again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.clones import clone, stored
from tests.lab.extra_host import remove_host
from tests.lab.test_two_operators import both_deploy
from tests.lab.untouched import said
from tests.lab.workspace import Done, Workspace

HOST, N = "lab-2", 2
INSTANCE = "/var/lib/corral/instances/tiny-f16"
SHARDS = "find /var/lib/corral/models -name '*.gguf' -exec sha256sum {} + | sort"
# The lab's other hosts were made with the packages that a deploy installs; this one was not.
LOOK = "ls -d /opt/corral /etc/corral 2>/dev/null || command -v g++ cmake ccache aria2c zstd"
# Everything but packages: files, units, rules and users of Corral.
LEFT = (
    "ls -d /opt/corral /etc/corral /var/lib/corral /usr/local/lib/corral "
    "/var/cache/private/corral* /etc/systemd/system/*corral* 2>/dev/null; "
    "systemctl list-units --all --plain --no-legend 'corral-*' 'served-by-corral*'; "
    "nft list tables | grep corral"
)
VERIFY = ("verify", HOST, "-i", "inventories/lab.py")


@dataclass(frozen=True)
class Identity:
    """What identifies the host, read from it."""

    releases: str
    shards: str
    generation: str
    unit: str
    keys: str


@dataclass(frozen=True)
class Rebuild:
    """The host before it was taken out and lost its disk, bare, and after two deploys at once."""

    before: Identity
    removed: Done
    left: str
    found_bare: str
    verified_bare: Done
    both: list[Done]
    after: Identity
    verified: Done


def identity(lab: Workspace) -> Identity:
    return Identity(
        releases=lab.on(HOST, "cd /opt/corral/engines && echo */*"),
        shards=lab.on(HOST, SHARDS),
        generation=lab.on(HOST, f"readlink {INSTANCE}/current"),
        unit=lab.on(HOST, "cat /etc/systemd/system/corral-tiny-f16.service"),
        keys=lab.on(HOST, "cat /etc/corral/keys/tiny-f16"),
    )


@pytest.fixture(scope="module")
def rebuild(deployed_once: Workspace) -> Rebuild:
    lab = deployed_once
    before = identity(lab)
    # As after a boot.
    lab.on(HOST, "systemctl start served-by-corral")
    removed = lab.corral("remove", HOST, "--all", "--weights", "-y", *VERIFY[2:])
    left = lab.try_on(HOST, LEFT).stdout
    remove_host(lab, N)
    up = lab.corral("lab", "up")
    assert up.returncode == 0, said(up)
    found_bare = lab.on(HOST, f"{LOOK} || echo bare")
    verified_bare = lab.corral(*VERIFY)
    both = both_deploy(lab, "--limit", HOST)
    assert 0 in [done.returncode for done in both], "\n\n".join(map(said, both))
    return Rebuild(
        before=before,
        removed=removed,
        left=left,
        found_bare=found_bare,
        verified_bare=verified_bare,
        both=both,
        after=identity(lab),
        verified=lab.corral(*VERIFY),
    )


def test_a_host_that_is_taken_out_keeps_nothing_of_corral(rebuild: Rebuild) -> None:
    assert rebuild.removed.returncode == 0, said(rebuild.removed)
    assert f"{HOST}/tiny-ik: removed" in rebuild.removed.stdout
    # The record of a disk for weights stays with them, where other tests of this lab made one.
    assert rebuild.left in ("", "/var/lib/corral\n")
    # Hosts of a lab share it.
    assert "/var/cache/corral/ccache is a mount and stays" in rebuild.removed.stdout


def test_a_host_that_lost_its_disk_is_deployed_to_what_it_was(rebuild: Rebuild) -> None:
    assert rebuild.found_bare == "bare"
    assert rebuild.after == rebuild.before


def test_verify_fails_on_the_bare_host_and_passes_on_the_rebuilt(rebuild: Rebuild) -> None:
    assert rebuild.verified_bare.returncode == 1
    assert rebuild.verified.returncode == 0, said(rebuild.verified)


def test_two_who_rebuild_a_host_at_once_both_end_well(rebuild: Rebuild) -> None:
    assert not any(done.returncode for done in rebuild.both), "\n\n".join(map(said, rebuild.both))


def test_two_who_rebuild_a_host_at_once_start_its_server_once(
    rebuild: Rebuild, fleet: Workspace
) -> None:
    assert rebuild.verified.returncode == 0
    journal = "journalctl --unit=corral-tiny-f16.service --output=cat --no-pager"
    assert fleet.on(HOST, f"{journal} | grep -c '^Started '") == "1"


QUESTION = '{"prompt":"Say hello.","max_tokens":24,"temperature":0}'
ASK = f"curl --silent --header @- --data '{QUESTION}' http://127.0.0.1:8001/v1/completions"


def reply(lab: Workspace) -> str:
    """What the host's server completes, without randomness."""
    key = stored(lab.layout.keys)[f"{HOST}/tiny-f16"][0]
    lines = f"Authorization: Bearer {key}\nContent-Type: application/json"
    answer = json.loads(lab.on(HOST, f"{ASK} <<'END'\n{lines}\nEND"))
    text: str = answer["choices"][0]["text"]
    return text


def test_a_lost_controller_and_host_come_back_from_a_clone_and_a_backup(
    rebuild: Rebuild,
    deployed_once: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lab = deployed_once
    # Not the journals and keys of this machine's user.
    for name in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    assert rebuild.verified.returncode == 0
    before, golden, file = identity(lab), reply(lab), tmp_path / "the.backup"
    saved = lab.corral("backup", str(file), "--archives", "-i", "inventories/lab.py")
    assert saved.returncode == 0, said(saved)
    remove_host(lab, N)
    keys, archives = tmp_path / "keys", tmp_path / "archives"
    took: dict[str, float] = {}

    def timed(what: str, run: Callable[[], Done]) -> None:
        began = time.monotonic()
        done = run()
        took[what] = time.monotonic() - began
        assert done.returncode == 0, said(done)

    timed("a bare host", lambda: lab.corral("lab", "up"))
    other = clone(lab, tmp_path, keys_folder=str(keys), archives_folder=str(archives))
    timed("restore", lambda: other.corral("restore", str(file), "-i", "inventories/lab.py"))
    # Other tests of this lab have hosts that the inventory does not.
    known = ("lab-1/", "lab-2/", "lab-3/")
    theirs = {name: k for name, k in stored(lab.layout.keys).items() if name.startswith(known)}
    assert stored(keys) == theirs
    timed("deploy", lambda: other.deploy("--limit", HOST))
    timed("verify", lambda: other.corral(*VERIFY))
    assert identity(lab) == before
    assert reply(lab) == golden
    assert lab.corral(*VERIFY).returncode == 0
    weights = int(lab.on(HOST, "du --bytes --summarize /var/lib/corral/models").split()[0])
    with capsys.disabled():
        print(f"\n{report(took, weights, file.stat().st_size)}")


def report(took: dict[str, float], weights_bytes: int, backup_bytes: int) -> str:
    """How long a rebuild took, and its least: bytes by bandwidth, of one gigabit a second."""
    lines = [f"{what:12} {seconds:6.1f} s" for what, seconds in took.items()]
    for what, size in (("weights", weights_bytes), ("backup", backup_bytes)):
        lines.append(f"{what:12} {size:,} bytes, {size / 125e6:.1f} s at 1 Gbit/s")
    return "\n".join(lines)
