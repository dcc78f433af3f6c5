"""`models_folder` of a host: where its weights are, and the mount that its servers wait for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.paths import HOST_PATHS, mount_units
from corral.planning.host_paths import host_paths
from corral.planning.stored_plans import stored_plan
from tests.samples import CHAT, host, plan

FOLDER = "/data/llm-models"


def test_weights_and_servers_are_in_the_folder_of_the_host() -> None:
    planned = plan(CHAT, models_folder=FOLDER)
    (chat,) = planned.instances
    assert planned.paths.models == FOLDER
    assert all(shard.path.startswith(f"{FOLDER}/corral-lab/") for shard in planned.shards)
    assert chat.model_path in chat.argv
    assert chat.model_path.startswith(f"{FOLDER}/")


def test_a_unit_requires_the_mount_and_starts_with_it() -> None:
    (chat,) = plan(CHAT, models_folder=FOLDER).instances
    lines = chat.unit_text.splitlines()
    assert f"RequiresMountsFor={FOLDER}" in lines
    assert f"AssertPathExists={chat.model_path}" in lines
    assert r"WantedBy=multi-user.target data.mount data-llm\x2dmodels.mount" in lines
    assert chat.activation.spare
    assert f"RequiresMountsFor={FOLDER}" in chat.activation.spare.unit_text


def test_without_the_key_nothing_changes() -> None:
    (chat,) = plan(CHAT).instances
    assert "RequiresMountsFor" not in chat.unit_text
    assert "AssertPathExists" not in chat.unit_text
    assert chat.unit_text.endswith("\nWantedBy=multi-user.target\n")


@pytest.mark.parametrize("folder", ["/data", "/srv/a-b/.c", "/.x/y", "/mnt/x_y:z.d/@e+f~g"])
def test_the_names_of_mounts_are_those_of_systemd(folder: str) -> None:
    above = [str(one) for one in (Path(folder), *Path(folder).parents) if str(one) != "/"]
    escaped = subprocess.run(
        ["systemd-escape", "--path", "--suffix=mount", *above], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert list(mount_units(folder)) == escaped.stdout.split()[::-1]


@pytest.mark.parametrize("given", ["/data/llm-models/", "//data//llm-models"])
def test_slashes_that_mean_nothing_are_dropped(given: str) -> None:
    assert host(CHAT, models_folder=given).spec.models_folder == FOLDER


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("models", "is not /folder"),
        ("/data/my models", "is not /folder"),
        ("/data/%h", "is not /folder"),
        ("/data/../etc", "is not the folder's own path"),
        ("/", "is not /folder"),
        ("//", "is not the folder's own path"),
        ("/home/llm/models", "is in /home, which the sandbox of servers replaces"),
        ("/tmp", "is in /tmp, which"),
        ("/var/lib/corral", "is where Corral keeps other things"),
        ("/var/lib/corral/instances/x", "is where Corral keeps other things"),
        ("/etc/corral/keys", "is where Corral keeps other things"),
    ],
)
def test_a_folder_that_cannot_serve_is_refused(given: str, what: str) -> None:
    with pytest.raises(CorralError, match="models_folder") as refused:
        host(CHAT, models_folder=given)
    assert what in refused.value.what


def test_what_corral_uses_by_itself_may_be_named() -> None:
    assert host(CHAT, models_folder=HOST_PATHS.models).spec.models_folder == HOST_PATHS.models


def test_commands_without_a_plan_know_the_folder() -> None:
    there = host(CHAT, models_folder=FOLDER)
    assert host_paths(there).models == FOLDER
    assert stored_plan(there, {"chat": {}}).paths.models == FOLDER
    assert host_paths(host(CHAT)) == HOST_PATHS
