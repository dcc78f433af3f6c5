"""Inventories: mistakes in host data, and files that cannot be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import load_inventory, parse_host
from corral.lock.lock_file import Lock
from corral.planning.load import load_planner
from tests.samples import CHAT, EXAMPLES, GPU, LONG, planner
from tests.samples import host as sample_host


def refusal(data: dict[str, Any]) -> CorralError:
    with pytest.raises(CorralError) as caught:
        parse_host("lab-1", data, origin="inventories/site.py")
    assert "inventories/site.py" in caught.value.where
    assert "lab-1" in caught.value.where
    assert "inventories/site.py" in caught.value.next_step
    return caught.value


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_two_instances_on_one_port_are_both_named() -> None:
    error = refusal({"instances": [CHAT, {**LONG, "port": CHAT["port"]}]})
    assert '"chat" and "long" share port 8001' in error.what


def test_two_instances_with_one_name_are_refused() -> None:
    assert 'called "chat"' in refusal({"instances": [CHAT, {**LONG, "name": "chat"}]}).what


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"instence": [CHAT]}, 'unknown key "instence" (did you mean "instances"?)'),
        ({"gpu": GPU}, 'unknown key "gpu" (did you mean "gpus"?)'),
        (
            {"instances": [{"name": "chat", "profil": "chat", "port": 8001}]},
            'unknown key "instances.0.profil" (did you mean "profile"?)',
        ),
        (
            {"gpus": {"name": "x", "count": 1, "compute_capabilty": "8.0"}},
            '(did you mean "compute_capability"?)',
        ),
    ],
)
def test_a_typo_in_a_key_names_the_nearest_key(data: dict[str, Any], said: str) -> None:
    assert said in refusal(data).what


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"swarm": "yes"}, "swarm: should be a table of name, port, from_hub, "),
        ({"swarm": "yes"}, "(hosts take weights from each other over the LAN; True for it"),
        ({"instances": [4]}, "instances.0: should be a table of name, profile, port, "),
        ({"container_program": "podman"}, '("apptainer", "singularity", or the path of one'),
        ({"instances": [{**CHAT, "name": "A"}]}, "(lower-case letters, digits, dots and dashes;"),
    ],
)
def test_what_is_no_table_or_has_another_form_tells_what_the_key_means(
    data: dict[str, Any], said: str
) -> None:
    found = refusal(data).what
    assert said in found
    assert "Spec" not in found


@pytest.mark.parametrize("name", ["Chat", "chat room", "-chat", "a/b", "x" * 49, ""])
def test_an_instance_name_that_cannot_be_a_unit_name_is_refused(name: str) -> None:
    assert "instances.0.name" in refusal({"instances": [{**CHAT, "name": name}]}).what


@pytest.mark.parametrize("port", [0, 65536, "http"])
def test_a_port_that_is_none_is_refused(port: object) -> None:
    assert "instances.0.port" in refusal({"instances": [{**CHAT, "port": port}]}).what


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ([2], 'instance "chat" names GPU 2, but the host has 2, counted from 0'),
        ([-1], "-1 is not an index"),
        ([0, 0], "0 is named twice"),
        (["GPU-1f", "GPU-1f"], "GPU-1f is named twice"),
        ([0, "GPU-1f"], "by index or by UUID, not both"),
        (["MIG-1f"], '"MIG-1f" is a slice of a GPU: Corral plans whole GPUs'),
        (["first"], '"first" is neither an index nor a UUID'),
        (["GPU-1", "GPU-2", "GPU-3"], 'instance "chat" names 3 GPUs, but the host has 2'),
    ],
)
def test_gpus_that_a_host_does_not_have_are_named(gpus: list[object], said: str) -> None:
    assert said in refusal({"instances": [{**CHAT, "gpus": gpus}], "gpus": GPU}).what


def test_an_instance_cannot_name_gpus_of_a_host_without() -> None:
    assert (
        "names gpus, but the host has none" in refusal({"instances": [{**CHAT, "gpus": [0]}]}).what
    )


@pytest.mark.parametrize("place", ["h:99999", "h:0", "h:port", "[::1"])
def test_a_url_with_a_port_that_is_none_is_refused(place: str) -> None:
    assert "is not http(s)://host[:port]" in refusal({"hub_url": f"http://{place}"}).what


def test_a_mistake_is_told_in_plain_words() -> None:
    assert refusal({"instances": CHAT}).what == "instances: Input should be a list"
    said = 'monitoring: grafana shows the Prometheus of its host: add "prometheus": {}'
    assert refusal({"monitoring": {"grafana": {}}}).what == said


def test_an_address_must_be_numeric() -> None:
    assert "address" in refusal({"instances": [{**CHAT, "address": "localhost"}]}).what


def test_keys_of_pyinfra_and_of_the_user_are_left_alone() -> None:
    data = {"ssh_user": "root", "_sudo": True, "rack": "b7", "instances": [CHAT]}
    assert parse_host("lab-1", data).data == data


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"profile": "caht"}, 'unknown profile "caht" (did you mean "chat"?)'),
        ({"model": "smal"}, 'unknown model "smal" (did you mean "small"?)'),
        ({"engine": "lama.cpp"}, 'unknown engine "lama.cpp" (did you mean "llama.cpp"?)'),
        ({"quant": "Q8"}, 'model small has no quant "Q8"'),
    ],
)
def test_an_unknown_name_tells_host_and_instance(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CorralError) as caught:
        planner().plan_host(sample_host({**CHAT, **change}))
    assert caught.value.where.startswith("lab-1/chat")
    assert said in caught.value.what


def test_an_unknown_quant_tells_the_near_miss() -> None:
    with pytest.raises(CorralError, match="Q8_0"):
        planner().plan_host(sample_host({**CHAT, "quant": "Q8"}))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorralError, match="no such inventory"):
        load_inventory(tmp_path / "absent.py")


@pytest.mark.parametrize(
    "text",
    [
        "servers = [",
        "servers = [undefined]",
        "import absent_module_of_nobody",
        "servers = {}['x']",
        "servers = [()[0]]",
        "servers = open('/absent/file')",
        "servers = None.hosts",
    ],
)
def test_a_file_that_cannot_be_run_is_named(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "site.py", text)
    with pytest.raises(CorralError, match="site.py"):
        load_inventory(path)


def test_group_data_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "group_data").mkdir()
    write(tmp_path / "group_data" / "all.py", "rack = undefined")
    path = write(tmp_path / "site.py", "servers = ['a']")
    with pytest.raises(CorralError, match=r"all\.py"):
        load_inventory(path)


def test_a_mistake_in_a_file_names_the_file_and_the_host(tmp_path: Path) -> None:
    path = write(tmp_path / "site.py", "servers = [('a', {'instances': [{'name': 'x'}]})]")
    with pytest.raises(CorralError, match=r"site\.py: a: .*profile") as caught:
        load_inventory(path)
    assert str(path) in caught.value.next_step


def test_the_production_example_loads_and_says_what_to_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(EXAMPLES)
    hosts = load_inventory(Path("inventories/prod.py"))
    names = ["desk-01", "desk-02", "gpu-01", "gpu-02", "gpu-03", "gpu-04"]
    names += ["rtx8000-01", "cpu-01", "gw-01"]
    assert [host.name for host in hosts] == names
    assert {host.data["ssh_strict_host_key_checking"] for host in hosts} == {"yes"}
    planner = load_planner(EXAMPLES)
    assert [len(pool.members) for pool in planner.gateways(hosts)["gw-01"].pools] == [2, 2, 1]
    engines_only = planner.model_copy(update={"lock": Lock(engines=planner.lock.engines)})
    with pytest.raises(CorralError) as caught:
        engines_only.plan_host(hosts[0])
    assert caught.value.where.startswith("desk-01/air")
    assert "no entry for model glm-4.5-air, quant UD-Q4_K_XL" in caught.value.what
    assert "corral lock" in caught.value.next_step


def test_planning_an_unlocked_model_names_the_entry_and_the_command() -> None:
    empty = planner().lock.model_copy(update={"models": {}})
    with pytest.raises(CorralError) as caught:
        planner().model_copy(update={"lock": empty}).plan_host(sample_host(CHAT))
    assert caught.value.where == "lab-1/chat"
    assert "corral.lock has no entry for model small, quant Q8_0" in caught.value.what
    assert "corral lock" in caught.value.next_step
