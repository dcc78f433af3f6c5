"""The unit of a vLLM server: what differs from that of a llama-server, and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from corral.paths import HostPaths
from corral.plan.instance import InstancePlan
from tests.samples import CHAT, GPU, LONG, ROOT, SOCKET, host
from tests.samples import planner as sample_planner
from tests.unit.planning.test_unit import analyze, as_systemd_reads, written
from tests.unit.vllm_samples import ASKED, ON_CPU, ON_SOCKET, planner

SAFE: dict[str, Any] = {**ON_CPU, "listen": "unix"}
# Name -> instance, host data, profile, and ten times the exposure that is allowed.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], int]] = {
    "tcp": (ASKED, {}, ON_CPU, 12),
    "unix socket": (ON_SOCKET, {}, SAFE, 7),
    "gpus": (ASKED, {"gpus": GPU}, {"tensor_parallel": 2}, 12),
    # The nodes of GPUs add 0.2, as for every engine.
    "gpus, unix socket": (ON_SOCKET, {"gpus": GPU}, {"tensor_parallel": 2, "listen": "unix"}, 8),
}


def planned(kind: str, paths: HostPaths | None = None) -> InstancePlan:
    spec, data, profile, _ = KINDS[kind]
    base = sample_planner(paths=paths)
    return planner(base, **profile).plan_host(host(spec, **data)).instances[0]


def settings(instance: InstancePlan) -> set[str]:
    """Lines of a unit that set something, without what names the instance."""
    lines = instance.unit_text.replace("\\\n", "").splitlines()
    names = ("X-Corral", "Description", "ExecStart", "LoadCredential", "RuntimeDirectory=")
    return {line for line in lines if "=" in line and not line.startswith(("#", *names))}


@pytest.mark.parametrize("kind", KINDS)
def test_systemd_finds_nothing_to_say_and_little_exposed(kind: str, tmp_path: Path) -> None:
    instance = planned(kind, HostPaths(engines=str(tmp_path / "engines")))
    path = written(tmp_path, instance)
    verified = analyze("verify", str(path))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    threshold = f"--threshold={KINDS[kind][3]}"
    secured = analyze("security", "--offline=true", threshold, str(path))
    assert secured.returncode == 0, secured.stdout.splitlines()[-1]


COMMON = {
    "Restart=always",
    "LimitNOFILE=65535",
    "CacheDirectory=corral-glm",
    "Environment=HOME=%C/corral-glm",
    "Environment=VLLM_NO_USAGE_STATS=1",
    "Environment=HF_HUB_OFFLINE=1",
    "Environment=VLLM_HOST_IP=127.0.0.1",
    "Environment=GLOO_SOCKET_IFNAME=lo",
    "Environment=NCCL_SOCKET_IFNAME=lo",
    "Environment=VLLM_USE_FLASHINFER_SAMPLER=0",
}
# libzmq aborts without the first; without the second libgomp computes with one thread.
ON_CPU_CALLS = "SystemCallFilter=sched_setscheduler sched_setaffinity"
LLAMA = {"Restart=on-failure", "Environment=GGML_NO_BACKTRACE=1"}


def test_it_differs_from_a_llama_server_by_what_it_needs() -> None:
    ours, theirs = settings(planned("tcp")), settings(llama(CHAT))
    assert ours - theirs == COMMON | {
        ON_CPU_CALLS,
        "MemoryDenyWriteExecute=no",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    }
    assert theirs - ours == LLAMA | {
        "MemoryDenyWriteExecute=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "SocketBindDeny=any",
        "SocketBindAllow=tcp:8001",
    }


def test_on_a_socket_its_processes_talk_over_loopback() -> None:
    ours, theirs = settings(planned("unix socket")), settings(llama(SOCKET))
    assert ours - theirs == COMMON | {
        ON_CPU_CALLS,
        "MemoryDenyWriteExecute=no",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_NETLINK",
        "IPAddressAllow=localhost",
    }
    assert theirs - ours == LLAMA | {
        "MemoryDenyWriteExecute=yes",
        "RestrictAddressFamilies=AF_UNIX",
    }


def test_on_gpus_no_memory_is_written_and_executed() -> None:
    ours = settings(planned("gpus"))
    theirs = settings(sample_planner().plan_host(host(CHAT, gpus=GPU)).instances[0])
    assert "MemoryDenyWriteExecute=yes" in ours
    families = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
    caches = {line.replace("-chat", "-glm") for line in theirs if "corral-chat" in line}
    named = {line for line in theirs if "corral-chat" in line}
    calls = "SystemCallFilter=sched_setscheduler"
    assert ours - theirs == COMMON | {calls, f"{families} AF_NETLINK"} | caches
    assert theirs - ours == LLAMA | named | {
        families,
        "SocketBindDeny=any",
        "SocketBindAllow=tcp:8001",
    }


def llama(spec: dict[str, Any]) -> InstancePlan:
    return sample_planner().plan_host(host(spec)).instances[0]


def test_a_filter_that_allows_a_call_comes_after_the_one_that_takes_it() -> None:
    lines = planned("tcp").unit_text.splitlines()
    taken = lines.index("SystemCallFilter=~@privileged @resources")
    assert lines.index(ON_CPU_CALLS) == taken + 1


def test_the_file_of_its_keys_is_made_from_the_credential_before_each_start(
    tmp_path: Path,
) -> None:
    instance = planned("tcp")
    path = "/run/corral-glm/vllm.yaml"
    assert instance.argv[instance.argv.index("--config") + 1] == path == instance.credential_path
    assert instance.prepare[-2:] == ("/run/credentials/corral-glm.service/api-keys", path)
    lines = instance.unit_text.splitlines()
    assert "RuntimeDirectory=corral-glm" in lines
    assert "LoadCredential=api-keys:/etc/corral/keys/glm" in lines
    assert as_systemd_reads(instance.unit_text, tmp_path) == [
        [word.replace("$", "$$") for word in command]
        for command in (instance.prepare, instance.argv)
    ]


def test_its_spare_has_a_file_of_keys_and_a_cache_of_its_own() -> None:
    spare = planned("tcp").activation.spare
    assert spare is not None
    assert "/run/corral-glm-spare/vllm.yaml" in spare.argv
    for line in (
        "RuntimeDirectory=corral-glm-spare",
        "CacheDirectory=corral-glm-spare",
        "Environment=HOME=%C/corral-glm-spare",
        "LoadCredential=api-keys:/etc/corral/keys/glm",
    ):
        assert line in spare.unit_text.splitlines()


def test_it_is_killed_after_its_own_limit_for_requests() -> None:
    instance = planned("tcp")
    limit = int(instance.argv[instance.argv.index("--shutdown-timeout") + 1])
    assert instance.stop_seconds > limit + 15
    assert f"TimeoutStopSec={instance.stop_seconds}" in instance.unit_text.splitlines()


def test_units_of_other_engines_are_as_they_were() -> None:
    """Digests of units before vLLM: another one would restart every server that runs."""
    known = json.loads((ROOT / "tests" / "data" / "units.json").read_text())
    hosts: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
        "cpu": ([CHAT, LONG, SOCKET], {}, {}),
        "gpu": ([{**CHAT, "gpus": [0]}, {**LONG, "address": "0.0.0.0"}, SOCKET], {"gpus": GPU}, {}),
        "lock": ([CHAT], {"gpus": GPU}, {"load_mode": "mmap+mlock"}),
    }
    found = {}
    for name, (specs, data, changes) in hosts.items():
        for one in sample_planner(**changes).plan_host(host(*specs, **data)).instances:
            text = one.unit_text.encode()
            found[f"{name} {one.name}"] = [one.generation, hashlib.sha256(text).hexdigest()]
            if spare := one.activation.spare:
                digest = hashlib.sha256(spare.unit_text.encode()).hexdigest()
                found[f"{name} {one.name} spare"] = ["", digest]
    assert found == known
