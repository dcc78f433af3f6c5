"""The second deploy changes nothing."""

from __future__ import annotations

from tests.lab.observed import INSTANCES, pids
from tests.lab.workspace import Workspace

MOST_COMMANDS_A_HOST = 12


def test_a_second_deploy_changes_no_operation_and_restarts_nothing(fleet: Workspace) -> None:
    before = pids(fleet)
    again = fleet.deploy()
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Success" not in (again.stdout + again.stderr).split("--> Results:")[0]
    assert pids(fleet) == before
    assert all(before.values())


def test_a_deploy_without_change_needs_few_commands(fleet: Workspace) -> None:
    again = fleet.deploy("-vvv", "--limit", "lab-1")
    commands = (again.stdout + again.stderr).count("[lab-1] >>> ")
    assert 0 < commands <= MOST_COMMANDS_A_HOST


def test_one_changed_profile_value_restarts_exactly_its_instance(fleet: Workspace) -> None:
    before = pids(fleet)
    with fleet.edited("catalog/profiles/tiny-long.toml", "= 8192", "= 4096"):
        changed = fleet.deploy()
        after = pids(fleet)
        command = fleet.on("lab-1", f"tr '\\0' ' ' < /proc/{after['lab-1', 'tiny-long']}/cmdline")
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert {pair for pair in INSTANCES if before[pair] != after[pair]} == {("lab-1", "tiny-long")}
    assert "--ctx-size 4096" in command


def test_a_key_file_that_others_could_read_is_private_again(fleet: Workspace) -> None:
    before = fleet.pid("lab-1", "tiny-chat")
    fleet.on("lab-1", "chmod 0644 /etc/corral/keys/tiny-chat")
    fixed = fleet.deploy()
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr
    assert fleet.on("lab-1", "stat --format %a /etc/corral/keys/tiny-chat") == "600"
    assert fleet.pid("lab-1", "tiny-chat") == before


def test_the_installed_helper_is_compiled_once_for_root_alone(deployed_once: Workspace) -> None:
    helper, folder = "/usr/local/lib/corral/corral_host.pyz", "/run/corral-helper"
    deployed_once.on("lab-1", f"python3 -I {helper} poll nothing 0")
    assert deployed_once.on("lab-1", f"stat --format '%U %a' {folder}") == "root 700"
    compiled = f"{folder}/$(sha256sum < {helper} | cut -d' ' -f1)/corral_host/__pycache__/jobs.*"
    first = deployed_once.on("lab-1", f"stat --format %Z {compiled}")
    deployed_once.on("lab-1", f"python3 -I {helper} poll nothing 0")
    assert deployed_once.on("lab-1", f"stat --format %Z {compiled}") == first
