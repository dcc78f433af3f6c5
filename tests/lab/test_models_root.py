"""The models root on a disk of its own: used, measured, and reported if it is not mounted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest

from tests.lab.observed import MODELS, digests, locked_shards
from tests.lab.test_downloads import SHARD, forget_the_shard
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import wait_for
from tests.lab.workspace import Done, Workspace

HOST = "lab-2"
DISK = "/srv/weights"
KEPT = f"{MODELS}.kept"
RECORD = "/var/lib/corral/models-root"
MOUNT = f"mount --bind {DISK}/models {MODELS}"
# A lazy unmount: a server may have weights open.
UNMOUNT = f"umount -l {MODELS}"


@dataclass(frozen=True)
class Disk:
    """lab-2 with its weights on a disk of 2 GiB, mounted at the models root."""

    lab: Workspace

    def on(self, script: str) -> str:
        return self.lab.on(HOST, script)

    def deploy(self) -> Done:
        return self.lab.deploy("--limit", HOST)

    def asked(self) -> int:
        """Number of requests to the hub so far."""
        return len((self.lab.layout.log / "hub.log").read_text())

    def assert_unchanged(self) -> None:
        again = self.deploy()
        assert again.returncode == 0, said(again)
        assert "Success" not in (again.stdout + again.stderr).split("--> Results:")[0]

    def assert_serves(self) -> None:
        """It serves after a restart, with the weights where they are now."""
        self.on("systemctl restart corral-tiny-f16")
        health = "curl --silent --fail http://127.0.0.1:8001/health"
        wait_for(lambda: self.lab.try_on(HOST, health).returncode == 0, "the server answers")


@pytest.fixture
def disk(fleet: Workspace) -> Iterator[Disk]:
    fleet.on(HOST, f"mkdir -p {DISK} && mount -t tmpfs -o size=2g tmpfs {DISK}")
    fleet.on(HOST, f"cp -a {MODELS} {DISK}/models && mv {MODELS} {KEPT}")
    fleet.on(HOST, f"mkdir {MODELS} && {MOUNT}")
    yield Disk(fleet)
    fleet.on(HOST, f"while mountpoint -q {MODELS}; do {UNMOUNT}; done")
    fleet.on(HOST, f"rm -rf {MODELS} && mv {KEPT} {MODELS} && umount -l {DISK}")
    # The disk has the marker of the folder, unless a test made another.
    fleet.on(HOST, f"cp {MODELS}/.corral-models {RECORD}")


def test_weights_that_moved_to_a_disk_are_used_from_there(disk: Disk) -> None:
    disk.assert_unchanged()
    disk.assert_serves()
    forget_the_shard(disk.lab)
    fetched = disk.deploy()
    assert fetched.returncode == 0, said(fetched)
    assert digests(disk.lab, HOST, f"{DISK}/models", "*.gguf").items() >= (
        locked_shards(disk.lab, "F16").items()
    )
    disk.assert_unchanged()


def test_weights_behind_a_link_are_used_from_there(disk: Disk) -> None:
    disk.on(f"{UNMOUNT} && rmdir {MODELS} && ln -s {DISK}/models {MODELS}")
    disk.assert_unchanged()
    disk.assert_serves()
    # find does not follow a link in its arguments.
    disk.on(f"find {MODELS}/ -name '{SHARD}*' -delete")
    fetched = disk.deploy()
    assert fetched.returncode == 0, said(fetched)
    assert SHARD in digests(disk.lab, HOST, f"{DISK}/models", "*.gguf")


def test_a_disk_that_is_not_mounted_is_missed_and_not_filled_again(disk: Disk) -> None:
    pid, asked = disk.lab.pid(HOST, "tiny-f16"), disk.asked()
    disk.on(UNMOUNT)
    refused = disk.deploy()
    assert_refused(refused, f"[{HOST}] {MODELS} is not where the weights were put", f"rm {RECORD}")
    assert disk.asked() == asked
    assert disk.on(f"ls -A {MODELS}") == ""
    assert disk.lab.pid(HOST, "tiny-f16") == pid
    disk.on(MOUNT)
    disk.assert_unchanged()


def test_a_disk_without_room_is_told_before_a_byte(disk: Disk) -> None:
    forget_the_shard(disk.lab)
    disk.on(f"mount -o remount,size=200m {DISK}")
    asked = disk.asked()
    refused = disk.deploy()
    assert_refused(refused, f"[{HOST}] {MODELS}: 1.0 GiB needed, 0.2 GiB free")
    assert f"mount a larger disk at {MODELS}" in said(refused)
    assert disk.asked() == asked


def test_a_file_system_below_the_root_is_refused_before_a_byte(disk: Disk) -> None:
    forget_the_shard(disk.lab)
    below = PurePosixPath(disk.on(f"find {MODELS} -type d -name F16"))
    disk.on(f"mount -t tmpfs tmpfs {below}")
    asked = disk.asked()
    refused = disk.deploy()
    disk.on(f"umount {below}")
    assert_refused(refused, f"[{HOST}] {below} is on another file system than {MODELS}/.staging")
    assert disk.asked() == asked


def test_weights_of_an_earlier_version_are_adopted(disk: Disk) -> None:
    disk.on(f"rm {RECORD} {MODELS}/.corral-models")
    asked = disk.asked()
    adopted = disk.deploy()
    assert adopted.returncode == 0, said(adopted)
    assert disk.on(f"cmp {RECORD} {MODELS}/.corral-models && stat -c %a {RECORD}") == "644"
    assert disk.asked() == asked
    disk.assert_unchanged()


SITE = "/srv/site-models"
FSTAB = f"{DISK}/models {SITE} none bind,nofail 0 0"
STAYS_DOWN = "systemctl start corral-tiny-f16; systemctl is-active corral-tiny-f16"


@pytest.fixture
def site(disk: Disk) -> Iterator[Disk]:
    """lab-2 with the site's own folder for weights, a mount of /etc/fstab."""
    disk.on(f"mkdir -p {SITE} && echo '{FSTAB}' >> /etc/fstab && systemctl daemon-reload")
    disk.on(f"mount {SITE}")
    # Only the bytes are there, side by side, as another program left them.
    disk.on(f"mv $(find {SITE} -mindepth 2 -name '*.gguf') {SITE}")
    disk.on(f"find {SITE} -mindepth 1 -maxdepth 1 -type d -exec rm -r {{}} +")
    key = 'return {"instances": [{**sharded'
    there = f'return {{"models_folder": "{SITE}", "instances": [{{**sharded'
    with disk.lab.edited("inventories/lab.py", key, there):
        yield disk
    disk.on(f"sed -i '\\#{SITE}#d' /etc/fstab && systemctl daemon-reload")
    back = disk.deploy()
    assert back.returncode == 0, said(back)
    disk.on(f"umount -l {SITE} && rm -rf {SITE} /var/lib/corral/models-root%2F*")


def health(disk: Disk) -> str:
    ask = "curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:8001/health"
    return disk.lab.try_on(HOST, ask).stdout


def test_a_server_waits_for_the_mount_of_the_folder_that_the_inventory_names(site: Disk) -> None:
    flat = site.on(f"stat -c %i {SITE}/*.gguf").split()
    deployed = site.deploy()
    assert deployed.returncode == 0, said(deployed)
    # Names of the same files: none was fetched or copied.
    placed = site.on(f"find {SITE} -mindepth 2 -name '*.gguf' -printf '%i\\n'").split()
    assert sorted(placed) == sorted(flat)
    assert SITE in site.on("systemctl show corral-tiny-f16 -P RequiresMountsFor").split()
    maps = f"grep -c {SITE} /proc/{site.lab.pid(HOST, 'tiny-f16')}/maps"
    assert int(site.on(maps)) > 0
    site.assert_unchanged()
    # As after a boot without its disk: the folder is empty, and nothing runs.
    site.on(f"systemctl stop corral-tiny-f16 corral-tiny-ik && umount {SITE}")
    # systemd makes a folder that is to be bound, unless something is in its place.
    site.on(f"mv {DISK}/models {DISK}/away && touch {DISK}/models")
    assert site.lab.try_on(HOST, STAYS_DOWN).stdout.strip() == "inactive"
    asked = site.asked()
    refused = site.deploy()
    assert_refused(refused, f"[{HOST}] {SITE}: nothing is mounted at {SITE}", f"mount {SITE}")
    lab = ("-i", "inventories/lab.py")
    for command in ("status", "verify"):
        report = site.lab.corral(command, HOST, *lab)
        assert report.returncode == 1
        assert f"{SITE}: nothing is mounted at {SITE}" in report.stdout + report.stderr
    assert site.on(f"ls -A {SITE}") == ""
    assert site.asked() == asked
    # The mount alone starts the servers.
    site.on(f"rm {DISK}/models && mv {DISK}/away {DISK}/models && mount {SITE}")
    wait_for(lambda: health(site) == "200", "the server starts with its disk")
    site.assert_unchanged()
