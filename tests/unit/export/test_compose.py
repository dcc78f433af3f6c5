"""The compose file as YAML; the lab's tests give it to docker-compose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from corral.export.subject import Subject
from tests.samples import CHAT, GPU, SOCKET
from tests.unit.exports import ALL_NASTY, EXTRA, exported, subject

TEMPLATE = "/var/lib/corral/instances/chat/generations/x/chat-template.jinja"
SOCKET_FILE = "/run/corral-private/llama.sock"


def service(about: Subject) -> Any:
    """The one service of the file."""
    (found,) = yaml.safe_load(exported("compose", about))["services"].values()
    return found


def test_the_command_line_is_the_units_but_for_address_and_keys() -> None:
    about = subject(CHAT, alias=ALL_NASTY, extra_flags=EXTRA)
    wanted = list(about.instance.argv)
    wanted[wanted.index("--host") + 1] = "0.0.0.0"
    wanted[wanted.index("--api-key-file") + 1] = "/run/secrets/api-keys"
    found = service(about)
    assert [*found["entrypoint"], *found["command"]] == [w.replace("$", "$$") for w in wanted]


def test_it_is_reached_where_the_plan_says() -> None:
    found = service(subject(CHAT))
    assert found["ports"] == ["127.0.0.1:8001:8001"]
    assert found["healthcheck"]["test"][-1] == "http://127.0.0.1:8001/health"
    assert "network_mode" not in found
    assert service(subject({**CHAT, "address": "::1"}))["ports"] == ["[::1]:8001:8001"]


def test_it_reads_the_hosts_release_weights_and_template_and_writes_none() -> None:
    about = subject(CHAT)
    instance = about.instance.model_copy(update={"chat_template_path": TEMPLATE})
    weights = str(Path(about.instance.shards[0]).parent)
    found = service(about.model_copy(update={"instance": instance}))
    assert found["volumes"] == [
        {"type": "bind", "source": path, "target": path, "read_only": True}
        for path in (about.release.folder, weights, TEMPLATE)
    ]
    assert len(service(about)["volumes"]) == 2


def test_its_keys_are_the_hosts_file_unless_told() -> None:
    whole = yaml.safe_load(exported("compose", subject(CHAT)))
    assert whole["secrets"] == {"api-keys": {"file": "${CORRAL_KEYS:-/etc/corral/keys/chat}"}}
    assert whole["services"]["chat"]["secrets"] == ["api-keys"]


def test_a_socket_is_shared_by_its_folder_and_the_network_left_out() -> None:
    found = service(subject(SOCKET))
    assert found["volumes"][-1] == "/run/corral-private:/run/corral-private"
    assert found["network_mode"] == "none"
    assert "ports" not in found
    assert found["command"][found["command"].index("--host") + 1] == SOCKET_FILE
    assert found["entrypoint"][-2:] == [SOCKET_FILE, subject(SOCKET).instance.argv[0]]
    assert found["healthcheck"]["test"][-3:] == [
        "--unix-socket",
        SOCKET_FILE,
        "http://localhost/health",
    ]


@pytest.mark.parametrize(
    ("gpus", "visible"),
    [([2, 0], "1,0"), (["GPU-b", "GPU-a"], "GPU-b,GPU-a"), ([], "0,1,2")],
)
def test_a_container_gets_the_instances_gpus_in_their_order(
    gpus: list[int | str], visible: str
) -> None:
    found = service(subject({**CHAT, "gpus": gpus}, data={"gpus": {**GPU, "count": 3}}))
    (device,) = found["deploy"]["resources"]["reservations"]["devices"]
    assert device == {
        "driver": "nvidia",
        "device_ids": [str(gpu) for gpu in gpus or (0, 1, 2)],
        "capabilities": ["gpu"],
    }
    assert found["environment"] == {
        "GGML_NO_BACKTRACE": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": visible,
    }


def test_without_gpus_none_are_asked_for() -> None:
    found = service(subject(CHAT))
    assert "deploy" not in found
    assert found["environment"] == {"GGML_NO_BACKTRACE": "1"}


def test_memory_is_locked_where_the_unit_may() -> None:
    assert service(subject(CHAT))["ulimits"] == {"core": 0}
    assert service(subject(CHAT, load_mode="mlock"))["ulimits"] == {"core": 0, "memlock": -1}
