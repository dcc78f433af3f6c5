"""Planning: exact command lines, what changes a generation, what is shared."""

from __future__ import annotations

import json
import socket
from hashlib import sha256
from typing import Any

import pytest

from corral.errors import CorralError
from corral.lock.lock_file import LockedFile, wanted_by
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.placement import ResolvedPlacement
from corral.planning.planner import Planner
from corral.schema import Frozen
from tests.samples import (
    CHAT,
    COMMIT,
    GPU,
    LONG,
    REPO,
    REVISION,
    SOCKET,
    built,
    host,
    plan,
    planner,
)

MODELS = f"/var/lib/corral/models/{REPO}/{REVISION}"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("planning opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)


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
        *("--load-mode", "mmap"),
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
    assert built(release).source_url == "git://10.0.0.1/x.git"
    assert release.key.startswith(f"{COMMIT[:12]}-cpu-")
    assert built(release).cmake_options == ("-DBUILD_SHARED_LIBS=OFF", "-DGGML_NATIVE=OFF")
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
    assert "-DCMAKE_CUDA_ARCHITECTURES=80" in built(planned.releases[0]).cmake_options
    assert "-DGGML_CUDA=ON" in built(planned.releases[0]).cmake_options
    assert "-cuda-" in planned.releases[0].key
    instance = planned.instances[0]
    assert instance.uses_gpu
    assert instance.argv[instance.argv.index("--n-gpu-layers") + 1] == "all"
    for device in ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia-uvm", "/dev/nvidiactl"):
        assert f"DeviceAllow={device} rw\n" in instance.unit_text
    assert "/dev/nvidia2" not in instance.unit_text
    assert instance.argv[instance.argv.index("--device") + 1] == "CUDA0,CUDA1"


def test_an_instance_may_have_some_of_the_gpus() -> None:
    instance = plan({**CHAT, "gpus": [1]}, gpus=GPU).instances[0]
    assert instance.gpus == (1,)
    assert "Environment=CUDA_VISIBLE_DEVICES=1\n" in instance.unit_text
    assert "Environment=CUDA_DEVICE_ORDER=PCI_BUS_ID\n" in instance.unit_text
    assert "DeviceAllow=/dev/nvidia1 rw\n" in instance.unit_text
    assert "DeviceAllow=/dev/nvidia0 rw\n" not in instance.unit_text


def test_a_uuid_opens_every_node_and_is_what_the_server_sees() -> None:
    instance = plan({**CHAT, "gpus": ["GPU-1f"]}, gpus=GPU).instances[0]
    assert instance.gpus == ("GPU-1f",)
    assert "Environment=CUDA_VISIBLE_DEVICES=GPU-1f\n" in instance.unit_text
    for index in (0, 1):
        assert f"DeviceAllow=/dev/nvidia{index} rw\n" in instance.unit_text


def test_an_instance_that_names_no_gpus_has_all() -> None:
    instance = plan(CHAT, gpus=GPU).instances[0]
    assert instance.gpus == (0, 1)
    assert "Environment=CUDA_VISIBLE_DEVICES=0,1\n" in instance.unit_text


@pytest.mark.parametrize("chat", [{"placement": "cpu"}, {"gpu_layers": 0}])
def test_a_profile_for_the_cpu_sees_no_gpu_on_a_gpu_host(chat: dict[str, Any]) -> None:
    instance = planner(**chat).plan_host(host(CHAT, gpus=GPU)).instances[0]
    assert (instance.gpus, instance.uses_gpu) == ((), False)
    assert "PrivateDevices=yes\n" in instance.unit_text
    assert "nvidia" not in instance.unit_text
    assert instance.argv[instance.argv.index("--n-gpu-layers") + 1] == "0"


def test_a_build_for_the_cpu_says_nothing_about_placement() -> None:
    chat: dict[str, Any] = {
        "tensor_overrides": ["exps=CPU"],
        "split_mode": "layer",
        "kv_on_gpu": False,
    }
    argv = planner(**chat).plan_host(host(CHAT, gpus=GPU, backend="cpu")).instances[0].argv
    assert not {"--override-tensor", "--split-mode", "--no-kv-offload"} & set(argv)


@pytest.mark.parametrize(
    ("chat", "placement"),
    [
        ({}, {"gpu_layers": "all"}),
        ({"gpu_layers": 7}, {"gpu_layers": 7}),
        ({"placement": "experts-on-cpu"}, {"gpu_layers": "all", "experts_on_cpu": True}),
        ({"cpu_moe_layers": 3}, {"gpu_layers": "all", "cpu_moe_layers": 3}),
        ({"tensor_split": [3, 1]}, {"gpu_layers": "all", "tensor_split": (3, 1)}),
    ],
)
def test_the_plan_tells_the_placement(chat: dict[str, Any], placement: dict[str, Any]) -> None:
    gpus = {**GPU, "count": 2 if "tensor_split" in chat else 1}
    instance = planner(**chat).plan_host(host(CHAT, gpus=gpus)).instances[0]
    assert instance.placement == ResolvedPlacement(**placement)


def test_kernels_are_built_for_the_cache_types_of_all_instances_on_the_gpus() -> None:
    def options(*instances: dict[str, Any], **chat: Any) -> set[str]:
        planned = planner(kv_type_k="q8_0", kv_type_v="q4_0", **chat).plan_host(
            host(*instances, gpus=GPU)
        )
        (release,) = planned.releases
        return {option for option in built(release).cmake_options if "FA_QUANTS" in option}

    pairs = "bf16-bf16;f16-f16;q4_0-q4_0;q8_0-q4_0;q8_0-q8_0"
    assert options(LONG, CHAT) == {f"-DGGML_CUDA_FA_QUANTS={pairs}"}
    assert options(LONG) == set()
    assert options(CHAT, kv_on_gpu=False) == set()
    assert options(LONG, CHAT, placement="cpu") == set()


def test_a_chat_template_is_part_of_its_generation() -> None:
    def instance(text: str) -> InstancePlan:
        base = planner(chat_template_file="own.jinja")
        known = base.catalog.model_copy(update={"chat_templates": {"own.jinja": text}})
        return base.model_copy(update={"catalog": known}).plan_host(host(CHAT)).instances[0]

    one, other = instance("{{ messages }}"), instance("{{ messages }}!")
    folder = f"{one.folder}/generations/{one.generation}"
    assert one.chat_template == "{{ messages }}"
    assert one.chat_template_path == f"{folder}/chat-template.jinja"
    assert one.argv[one.argv.index("--chat-template-file") + 1] == one.chat_template_path
    assert one.chat_template_path in one.unit_text
    texts = {
        one.unit_path: one.unit_text, f"{folder}/unit": one.unit_text,
        one.chat_template_path: one.chat_template,
    }  # fmt: skip
    digests = {path: sha256(text.encode()).hexdigest() for path, text in texts.items()}
    assert one.file_sha256 == digests
    assert one.generation != other.generation
    assert instance("{{ messages }}") == one


def test_a_host_without_gpus_gets_no_devices() -> None:
    text = plan(CHAT).instances[0].unit_text
    assert "nvidia" not in text
    assert "PrivateDevices=yes\n" in text


def test_another_compute_capability_is_another_release() -> None:
    other = plan(CHAT, gpus={**GPU, "compute_capability": "9.0"})
    assert other.releases[0].key != plan(CHAT, gpus=GPU).releases[0].key


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


def test_the_helper_gets_everything_but_whole_files() -> None:
    planned = plan(CHAT)
    (sent,) = json.loads(planned.to_helper())["instances"]
    # The name of one that the engine has is another thing, and stands in settings.
    assert "chat_template" not in sent
    assert '"chat_template_path":' in planned.to_helper()
    assert planned.instances[0].generation in planned.to_helper()
    assert "unit_text" not in planned.to_helper()
    assert "ExecStart" not in planned.to_helper()


def seeing(projector: str | None, **chat: Any) -> Planner:
    """A planner whose model has a projector, which the lock knows."""
    made = planner(**chat)
    small = made.catalog.models["small"]
    quant = small.quants["Q8_0"].model_copy(update={"projector": projector})
    model = small.model_copy(update={"quants": {**small.quants, "Q8_0": quant}})
    locked = made.lock.models["small"]
    file = LockedFile(path="mmproj-F16.gguf", size_bytes=9, sha256="7" * 64, kind="projector")
    files = (*locked.quants["Q8_0"], *((file,) if projector else ()))
    entry = locked.model_copy(
        update={
            "quants": {**locked.quants, "Q8_0": files},
            "patterns": {**locked.patterns, "Q8_0": quant.patterns},
        }
    )
    return made.model_copy(
        update={
            "catalog": made.catalog.model_copy(update={"models": {"small": model}}),
            "lock": made.lock.model_copy(update={"models": {"small": entry}}),
        }
    )


def test_a_server_with_vision_loads_its_projector_and_it_is_counted() -> None:
    plan = seeing("mmproj-F16.gguf", vision=True, image_tokens=512).plan_host(host(CHAT, gpus=GPU))
    (instance,) = plan.instances
    path = f"/var/lib/corral/models/{REPO}/{REVISION}/mmproj-F16.gguf"
    assert instance.argv[instance.argv.index("--mmproj") + 1] == path
    assert instance.argv[instance.argv.index("--image-max-tokens") + 1] == "512"
    assert instance.shards[1:] == (path,)
    assert instance.model_path == instance.shards[0] != path
    assert instance.projector == path
    assert [shard.kind for shard in plan.shards] == ["weights", "projector"]
    assert all(shard.header for shard in plan.shards)
    blind = seeing("mmproj-F16.gguf").plan_host(host(CHAT, gpus=GPU)).instances[0]
    assert instance.need.gpus[0].compute_mib > blind.need.gpus[0].compute_mib
    assert instance.need.gpus[1:] == blind.need.gpus[1:]


def test_without_vision_no_projector_is_fetched() -> None:
    plan = seeing("mmproj-F16.gguf").plan_host(host(CHAT))
    assert [shard.kind for shard in plan.shards] == ["weights"]
    assert "--mmproj" not in plan.instances[0].argv
    assert plan.instances[0].generation == planner().plan_host(host(CHAT)).instances[0].generation


def test_vision_without_a_projector_is_refused() -> None:
    with pytest.raises(CorralError) as caught:
        seeing(None, vision=True).plan_host(host(CHAT))
    assert "quant Q8_0 of small has no projector" in caught.value.what
    assert "catalog/models/small.toml" in caught.value.next_step


def more_than_alone(instance: InstancePlan) -> list[tuple[int, int]]:
    """Weights and KV in MiB on each GPU, beyond those of the model alone."""
    alone = planner().plan_host(host(CHAT, gpus=GPU)).instances[0]
    pairs = zip(instance.need.gpus, alone.need.gpus, strict=True)
    return [(a.weights_mib - b.weights_mib, a.kv_mib - b.kv_mib) for a, b in pairs]


def test_a_draft_model_is_loaded_and_counted_on_the_first_gpu() -> None:
    plan = planner(draft_model="small/F16", draft_tokens=5).plan_host(host(CHAT, gpus=GPU))
    (instance,) = plan.instances
    assert [shard.kind for shard in plan.shards] == ["weights", "draft", "draft"]
    words = " ".join(instance.argv)
    path = plan.shards[1].path
    assert f"--spec-type draft-simple --spec-draft-n-max 5 --spec-draft-model {path} " in words
    assert " --spec-draft-device CUDA0 --spec-draft-ngl all " in words
    assert instance.drafts_tokens
    (weights_mib, kv_mib), second = more_than_alone(instance)
    assert weights_mib > 0
    assert kv_mib > 0
    assert second == (0, 0)
    on_cpu = planner(draft_model="small/F16").plan_host(host(CHAT)).instances[0]
    assert "--spec-draft-device" not in on_cpu.argv


def test_adapters_are_loaded_and_counted_on_each_gpu() -> None:
    plan = planner(lora=["small/F16"]).plan_host(host(CHAT, gpus=GPU))
    (instance,) = plan.instances
    assert [shard.kind for shard in plan.shards] == ["weights", "adapter", "adapter"]
    paths = [shard.path for shard in plan.shards[1:]]
    assert instance.argv[instance.argv.index("--lora") + 1] == ",".join(paths)
    # Two files of a GiB.
    assert more_than_alone(instance) == [(2048, 0), (2048, 0)]
    assert not instance.drafts_tokens


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"draft_model": "none/F16"}, "none"),
        ({"lora": ["small/Q9"]}, 'model small has no quant "Q9"'),
    ],
)
def test_a_file_beside_the_model_that_is_unknown_is_named(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CorralError) as caught:
        planner(**changes).plan_host(host(CHAT))
    assert said in str(caught.value)


def test_the_lock_has_what_is_beside_the_model() -> None:
    known = planner(draft_model="small/F16").catalog
    assert wanted_by([host(CHAT)], known).quants == {("small", "Q8_0"), ("small", "F16")}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"draft_tokens": 3}, "draft_tokens has no effect without draft_model"),
        ({"draft_model": "small/F16", "mtp_draft_tokens": 1}, "are both set"),
        ({"draft_model": "small"}, "draft_model"),
        ({"lora": ["a b/c"]}, "lora"),
    ],
)
def test_keys_of_files_beside_the_model_are_checked(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        planner(**changes)
