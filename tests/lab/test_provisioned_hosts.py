"""The state of hosts after a deploy, read by plain commands."""

from __future__ import annotations

import json

import pytest

from tests.lab.observed import INSTANCES, MODELS, digests, locked_shards
from tests.lab.workspace import Workspace

QUANT_OF = {"lab-1": "Q8_0", "lab-2": "F16", "lab-3": "Q8_0"}
ENGINES = "/opt/corral/engines/llama.cpp"
MOST_EXPOSED = {"tiny-socket": 0.6}
MOST_EXPOSED_BY_TCP = 1.3


@pytest.mark.parametrize("host", QUANT_OF)
def test_every_shard_on_a_host_has_its_locked_digest(deployed_once: Workspace, host: str) -> None:
    found = digests(deployed_once, host, MODELS, "*.gguf")
    assert found.items() >= locked_shards(deployed_once, QUANT_OF[host]).items()
    # Those of a generation before stay for its revert.
    locked: dict[str, str] = {}
    for quant in QUANT_OF.values():
        locked |= locked_shards(deployed_once, quant)
    assert found.items() <= locked.items()


def test_a_flipped_bit_is_seen_by_the_comparison_above(deployed_once: Workspace) -> None:
    flip = "printf '\\001' | dd of=/tmp/rot/rotten.gguf bs=1 seek=100000 conv=notrunc status=none"
    copy = f"mkdir -p /tmp/rot && cp {MODELS}/*/*/*/Q8_0/*.gguf /tmp/rot/rotten.gguf"
    before = deployed_once.on("lab-1", f"{copy} && sha256sum < /tmp/rot/rotten.gguf").split()[0]
    deployed_once.on("lab-1", flip)
    found = digests(deployed_once, "lab-1", "/tmp/rot", "*.gguf")
    deployed_once.on("lab-1", "rm -r /tmp/rot")
    wanted = set(locked_shards(deployed_once, "Q8_0").values())
    assert before in wanted
    assert found["rotten.gguf"] not in wanted


def test_two_instances_map_one_and_the_same_file(deployed_once: Workspace) -> None:
    find = f"find {MODELS} -type f -path '*/Q8_0/*.gguf' -printf '%i %p\\n'"
    listing = deployed_once.on("lab-1", find)
    assert len(listing.splitlines()) == 1
    inode, path = listing.split()
    # The test of another file may have had it fetched again, under running servers.
    restarted = deployed_once.corral("restart", "lab-1", "-i", "inventories/lab.py")
    assert restarted.returncode == 0, restarted.stdout + restarted.stderr
    for instance in ("tiny-chat", "tiny-long"):
        maps = deployed_once.on(
            "lab-1", f"grep gguf /proc/{deployed_once.pid('lab-1', instance)}/maps"
        )
        assert {tuple(line.split()[4:]) for line in maps.splitlines()} == {(inode, path)}


def test_keys_are_readable_by_root_alone(deployed_once: Workspace) -> None:
    for host in QUANT_OF:
        names = sorted(name for on, name in INSTANCES if on == host)
        folder = deployed_once.on(host, "stat -c '%a %U:%G' /etc/corral/keys")
        files = deployed_once.on(
            host, "cd /etc/corral/keys && stat -c '%n %a %U:%G' *"
        ).splitlines()
        assert folder == "700 root:root"
        assert files == [f"{name} 600 root:root" for name in names]
    assert deployed_once.on("lab-1", "stat -c %a /etc/hostname") == "644"


@pytest.mark.parametrize(("host", "instance"), INSTANCES)
def test_a_server_gets_its_keys_as_a_credential(
    deployed_once: Workspace, host: str, instance: str
) -> None:
    unit = f"corral-{instance}.service"
    command = deployed_once.on(
        host, f"tr '\\0' ' ' < /proc/{deployed_once.pid(host, instance)}/cmdline"
    )
    assert f"--api-key-file /run/credentials/{unit}/api-keys" in command
    assert "/etc/corral" not in command
    unit_text = deployed_once.on(host, f"systemctl cat {unit}")
    assert f"LoadCredential=api-keys:/etc/corral/keys/{instance}" in unit_text.splitlines()
    deployed_once.on(host, f"cmp /etc/corral/keys/{instance} /run/credentials/{unit}/api-keys")


@pytest.mark.parametrize(("host", "instance"), INSTANCES)
def test_a_server_runs_as_a_dynamic_user(
    deployed_once: Workspace, host: str, instance: str
) -> None:
    pid = deployed_once.pid(host, instance)
    assert deployed_once.on(host, f"systemctl show corral-{instance} -P DynamicUser") == "yes"
    uids = deployed_once.on(host, f"grep ^Uid: /proc/{pid}/status").split()[1:]
    assert all(61184 <= int(uid) <= 65519 for uid in uids), uids
    assert deployed_once.on(host, "grep ^Uid: /proc/1/status").split()[1:] == ["0"] * 4


@pytest.mark.parametrize("host", QUANT_OF)
def test_systemd_finds_nothing_wrong_with_the_units(deployed_once: Workspace, host: str) -> None:
    units = "/etc/systemd/system/corral-*.service"
    quiet = deployed_once.try_on(
        host, f"for unit in {units}; do systemd-analyze verify $unit; done"
    )
    assert quiet.stdout + quiet.stderr == ""
    misspelt = "sed s/^NoNewPrivileges=/NoNewPriveleges=/ /etc/systemd/system/corral-tiny-*"
    wrong = f"{misspelt} > /tmp/wrong.service; systemd-analyze verify /tmp/wrong.service"
    assert "NoNewPriveleges" in deployed_once.try_on(host, f"{wrong}; rm /tmp/wrong.service").stderr


@pytest.mark.parametrize(("host", "instance"), INSTANCES)
def test_a_unit_is_hardened(deployed_once: Workspace, host: str, instance: str) -> None:
    exposure = exposed(deployed_once, host, f"corral-{instance}.service")
    assert exposure <= MOST_EXPOSED.get(instance, MOST_EXPOSED_BY_TCP)
    assert exposed(deployed_once, host, "ssh.service") > 9


def exposed(deployed_once: Workspace, host: str, unit: str) -> float:
    """systemd's exposure of a unit: from 0, safe, to 10."""
    said = deployed_once.on(host, f"systemd-analyze security --no-pager {unit}")
    return float(said.partition(f"Overall exposure level for {unit}: ")[2].split()[0])


def test_a_socket_instance_answers_over_its_socket_and_nowhere_else(
    deployed_once: Workspace,
) -> None:
    key = "grep -m1 '^[^#]' /etc/corral/keys/tiny-socket"
    ask = (
        f"printf 'Authorization: Bearer %s' $({key}) | curl --silent --show-error --fail "
        "--header @- --unix-socket /run/corral-tiny-socket/llama.sock http://localhost/v1/models"
    )
    assert json.loads(deployed_once.on("lab-3", ask))["data"][0]["id"] == "tiny-glm-moe"
    assert listening(deployed_once, "tiny-socket") == 0
    assert listening(deployed_once, "tiny-gpu") == 1


def listening(deployed_once: Workspace, instance: str) -> int:
    """Number of TCP listeners of an instance on lab-3, in its process's network namespace."""
    pid = deployed_once.pid("lab-3", instance)
    lines = deployed_once.on(
        "lab-3", f"nsenter --target {pid} --net ss --listening --tcp --no-header -p"
    )
    return sum(f"pid={pid}," in line for line in lines.splitlines())


@pytest.mark.parametrize("host", QUANT_OF)
def test_a_release_is_what_its_manifest_says(deployed_once: Workspace, host: str) -> None:
    commit = json.loads((deployed_once.path / "corral.lock").read_text())["engines"]["llama.cpp"][
        "commit"
    ]
    (folder,) = deployed_once.on(host, f"ls -d {ENGINES}/*").splitlines()
    manifest = json.loads(deployed_once.on(host, f"cat {folder}/manifest.json"))
    assert manifest["commit"] == commit
    described = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    found = {
        f"{part}/{name}": digest
        for part in ("bin", "lib")
        for name, digest in digests(deployed_once, host, f"{folder}/{part}").items()
    }
    assert found == described
    version = deployed_once.on(host, f"{folder}/bin/llama-server --version 2>&1")
    assert f"commit {commit[:7]}" in version


def test_programs_need_their_own_libraries_and_the_c_library(deployed_once: Workspace) -> None:
    (folder,) = deployed_once.on("lab-3", f"ls -d {ENGINES}/*").splitlines()
    for name in ("llama-server", "llama-fit-params"):
        needed = deployed_once.on("lab-3", f"ldd {folder}/bin/{name}")
        pairs = [line.split("=>") for line in needed.splitlines() if "=>" in line]
        libraries = {library.strip(): path.split()[0] for library, path in pairs}
        assert "not found" not in needed
        own = {
            library
            for library, path in libraries.items()
            if path.startswith(f"{folder}/bin/../lib/")
        }
        assert {"libgomp.so.1", "libstdc++.so.6"} <= own
        assert set(libraries) - own <= {"libc.so.6", "libm.so.6"}
