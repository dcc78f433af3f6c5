"""Planning: exact command lines, what changes a generation, what is shared, what is refused."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from corral.errors import CorralError
from corral.plan import HostPlan
from corral.schema import Frozen
from tests.samples import CHAT, COMMIT, GPU, LONG, REPO, REVISION, SOCKET, host, plan, planner

MODELS = f"/var/lib/corral/models/{REPO}/{REVISION}"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("planning opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)


def refusal(*instances: dict[str, Any], chat: dict[str, Any] | None = None, **data: Any) -> str:
    with pytest.raises(CorralError) as caught:
        planner(**(chat or {})).plan_host(host(*instances, **data))
    assert caught.value.where.startswith("lab-1/")
    assert caught.value.next_step
    return caught.value.what


def test_the_command_line_of_a_lab_like_host_is_exactly_this() -> None:
    planned = plan(CHAT, LONG)
    release = planned.releases[0]
    assert release.folder == f"/opt/corral/engines/llama.cpp/{release.key}"
    assert planned.instances[0].argv == (
        f"{release.folder}/bin/llama-server",
        *("--model", f"{MODELS}/Q8_0/Small-Q8_0.gguf"),
        *("--alias", "small"),
        *("--host", "127.0.0.1", "--port", "8001"),
        *("--api-key-file", "/run/credentials/corral-chat.service/api-keys"),
        *("--ctx-size", "4096", "--parallel", "2"),
        *("--cache-type-k", "f16", "--cache-type-v", "f16"),
        *("--flash-attn", "on"),
        *("--batch-size", "2048", "--ubatch-size", "512"),
        *("--n-gpu-layers", "0", "--fit", "off"),
        *("--threads", "3"),
        *("--cache-ram", "8192"),
        *("--jinja", "--reasoning-format", "auto"),
        "--metrics",
        *("--no-ui", "--offline"),
    )
    assert "--metrics" not in planned.instances[1].argv


def test_names_and_paths_of_an_instance_come_from_one_place() -> None:
    instance = plan(CHAT).instances[0]
    assert instance.unit == "corral-chat.service"
    assert instance.unit_path == "/etc/systemd/system/corral-chat.service"
    assert instance.key_path == "/etc/corral/keys/chat"
    assert instance.folder == "/var/lib/corral/instances/chat"
    assert instance.endpoint.url == "http://127.0.0.1:8001"
    assert f"X-Corral-Generation={instance.generation}\n" in instance.unit_text


def test_a_release_is_the_locked_commit_from_the_hosts_source() -> None:
    release = plan(CHAT, engine_sources={"llama.cpp": "git://10.0.0.1/x.git"}).releases[0]
    assert release.commit == COMMIT
    assert release.source_url == "git://10.0.0.1/x.git"
    assert release.key.startswith(f"{COMMIT[:12]}-cpu-")
    assert release.cmake_options == ("-DBUILD_SHARED_LIBS=OFF", "-DGGML_NATIVE=OFF")
    assert plan(CHAT).releases[0].key == release.key, "another source is the same release"


def test_shards_are_asked_for_by_commit_and_proved_by_the_lock() -> None:
    planned = plan({**CHAT, "quant": "F16"})
    assert [s.path for s in planned.shards] == [
        f"{MODELS}/F16/Small-F16-0000{n}-of-00002.gguf" for n in (1, 2)
    ]
    first = planned.shards[0]
    assert first.url == (
        f"http://hub.example.com/{REPO}/resolve/{REVISION}/F16/Small-F16-00001-of-00002.gguf"
    )
    assert first.sha256 == "1" * 64
    assert planned.instances[0].argv[2] == first.path


def test_two_instances_of_one_model_share_its_shards_and_release() -> None:
    planned = plan(CHAT, LONG)
    assert len(planned.shards) == len(planned.releases) == 1
    assert planned.instances[0].shards == planned.instances[1].shards


def test_the_same_inputs_give_the_same_bytes() -> None:
    texts = {plan(CHAT, LONG, SOCKET, gpus=GPU).model_dump_json() for _ in range(3)}
    assert len(texts) == 1
    text = texts.pop()
    assert HostPlan.model_validate_json(text).model_dump_json() == text


def test_a_socket_instance_has_no_port() -> None:
    instance = plan(SOCKET).instances[0]
    assert instance.endpoint.socket == "/run/corral-private/llama.sock"
    assert instance.endpoint.port is None
    assert instance.endpoint.url == "unix:/run/corral-private/llama.sock"
    assert instance.argv[instance.argv.index("--host") + 1] == instance.endpoint.socket
    assert "--port" not in instance.argv


def test_a_gpu_host_is_built_for_its_architecture_and_gets_its_devices() -> None:
    planned = plan(CHAT, gpus=GPU)
    assert "-DCMAKE_CUDA_ARCHITECTURES=80" in planned.releases[0].cmake_options
    assert "-DGGML_CUDA=ON" in planned.releases[0].cmake_options
    assert "-cuda-" in planned.releases[0].key
    instance = planned.instances[0]
    assert instance.uses_gpu
    assert instance.argv[instance.argv.index("--n-gpu-layers") + 1] == "all"
    for device in ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia-uvm", "/dev/nvidiactl"):
        assert f"DeviceAllow={device} rw\n" in instance.unit_text
    assert "/dev/nvidia2" not in instance.unit_text


def test_a_host_without_gpus_gets_no_devices() -> None:
    text = plan(CHAT).instances[0].unit_text
    assert "nvidia" not in text
    assert "PrivateDevices=yes\n" in text


def test_another_compute_capability_is_another_release() -> None:
    other = plan(CHAT, gpus={**GPU, "compute_capability": "9.0"})
    assert other.releases[0].key != plan(CHAT, gpus=GPU).releases[0].key


def test_a_context_above_the_trained_length_is_refused() -> None:
    what = refusal(CHAT, chat={"context_tokens_per_slot": 8193})
    assert "8193" in what
    assert "8192" in what


def test_a_missing_port_is_refused() -> None:
    assert "port is missing" in refusal({"name": "chat", "profile": "chat"})


def test_a_port_for_a_socket_profile_is_refused() -> None:
    assert "port 8003 is given" in refusal({**SOCKET, "port": 8003})


def test_cuda_without_gpus_is_refused() -> None:
    assert "no gpus" in refusal(CHAT, backend="cuda")


@pytest.mark.parametrize(
    ("address", "open_to_all"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True)]
)
def test_only_a_loopback_address_denies_other_peers(address: str, open_to_all: bool) -> None:
    instance = plan({**CHAT, "address": address}).instances[0]
    assert ("IPAddressDeny=any" not in instance.unit_text) is open_to_all


def test_an_ipv6_endpoint_is_written_with_brackets() -> None:
    assert plan({**CHAT, "address": "::1"}).instances[0].endpoint.url == "http://[::1]:8001"


def test_a_plan_cannot_be_changed_afterwards() -> None:
    planned: Frozen = plan(CHAT)
    with pytest.raises(ValueError, match="frozen"):
        planned.host = "other"  # type: ignore[attr-defined]


def test_the_helper_gets_everything_but_unit_texts() -> None:
    planned = plan(CHAT)
    assert planned.instances[0].generation in planned.to_helper()
    assert "unit_text" not in planned.to_helper()
    assert "ExecStart" not in planned.to_helper()
