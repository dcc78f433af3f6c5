"""An activation that loses its deploy, its own process, or the power of its host."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from lab import hosts, ssh
from tests.lab.test_activation import (
    ASK,
    FOLDER,
    HANGS,
    HOST,
    IS_NEW,
    NAME,
    PROFILE,
    UNIT,
    VALUE,
    drop_in,
)
from tests.lab.untouched import said
from tests.lab.waiting import job_log, job_runs, kill, wait_for, wait_for_end
from tests.lab.workspace import Done, Workspace

JOB = f"activate-{NAME}"
# Another generation than the one that fails in test_activation.
NEW = 'context_tokens_per_slot = 1024\nready_timeout_seconds = 90\nreasoning_format = "none"'
INVENTORY = "inventories/lab.py"
LISTENERS = "ss -Hltn sport = :8009"


@contextmanager
def held_activation(lab: Workspace) -> Iterator[subprocess.Popen[str]]:
    """A deploy whose gate waits for a stopped server, until the test continues it."""
    with drop_in(lab, UNIT, HANGS), lab.edited(PROFILE, VALUE, NEW):
        deploy = lab.start_deploy()
        wait_for(lambda: waits(lab), "the gate waits")
        yield deploy


def waits(lab: Workspace) -> bool:
    """Whether the new unit is in place, and a request to its server is waiting."""
    last = job_log(lab, HOST, JOB).strip().rpartition("\n")[2]
    runs = "is not ready yet" in last and job_runs(lab, HOST, JOB)
    return runs and lab.try_on(HOST, IS_NEW).returncode == 0


def generation(lab: Workspace) -> str:
    return lab.on(HOST, f"readlink {FOLDER}/current").removeprefix("generations/")


def installed(lab: Workspace) -> str:
    return lab.on(HOST, f"sed -n 's/^X-Corral-Generation=//p' /etc/systemd/system/{UNIT}")


def planned(lab: Workspace) -> str:
    plan = json.loads(lab.corral("plan", HOST, "--json", "-i", INVENTORY).stdout)
    return next(str(i["generation"]) for i in plan["instances"] if i["name"] == NAME)


def ended(deploy: subprocess.Popen[str]) -> Done:
    text = deploy.communicate()[0]
    return Done(deploy.args, deploy.returncode, text, "")


def test_a_switch_whose_deploy_is_killed_ends_well_on_the_host_by_itself(fleet: Workspace) -> None:
    with held_activation(fleet) as deploy:
        kill(deploy)
        assert job_runs(fleet, HOST, JOB)
        pid = fleet.pid(HOST, NAME)
        fleet.on(HOST, f"kill -CONT {pid}")
        wait_for_end(fleet, HOST, JOB, "the switch ends")
        assert generation(fleet) == installed(fleet) == planned(fleet)
        again = fleet.deploy()
        assert again.returncode == 0, said(again)
        assert fleet.pid(HOST, NAME) == pid


def test_a_switch_that_is_killed_is_taken_back(fleet: Workspace) -> None:
    before = generation(fleet)
    with held_activation(fleet) as deploy:
        fleet.on(HOST, f"systemctl kill --kill-whom=main --signal=KILL corral-job-{JOB}.service")
        done = ended(deploy)
    assert done.returncode == 1, said(done)
    assert f"Reverted: generation {before} serves again" in said(done)
    assert generation(fleet) == installed(fleet) == before
    assert '"content"' in fleet.on(HOST, ASK)
    assert fleet.on(HOST, f"ls {FOLDER}/activating.json || echo settled").endswith("settled")


def test_a_power_cut_in_a_switch_is_healed_by_the_next_deploy(fleet: Workspace) -> None:
    layout = fleet.layout
    with held_activation(fleet) as deploy:
        hosts.power_cut(layout, 1)
        kill(deploy)
        hosts.boot(layout, 1)
        ssh.wait_until_booted(layout, 1)
        again = fleet.deploy()
        assert again.returncode == 0, said(again)
        assert generation(fleet) == installed(fleet) == planned(fleet)
        assert '"content"' in fleet.on(HOST, ASK)


def test_a_first_generation_that_fails_leaves_no_unit_behind(fleet: Workspace) -> None:
    name = "tiny-new"
    unit = f"corral-{name}.service"
    new = f'{{**long, "name": "{name}", "port": 8009}}'
    with (
        drop_in(fleet, unit, "ExecStartPre=/bin/false"),
        fleet.edited(INVENTORY, ", long]", f", long, {new}]"),
    ):
        done = fleet.deploy("--limit", HOST)
    assert done.returncode == 1
    assert "no generation served before: the unit was stopped and removed" in said(done)
    assert fleet.on(HOST, f"systemctl show {unit} -P LoadState") == "not-found"
    assert fleet.try_on(HOST, f"systemctl is-active {unit}").stdout.strip() == "inactive"
    assert fleet.try_on(HOST, f"ls /etc/systemd/system/*/{unit}").returncode != 0
    assert fleet.on(HOST, LISTENERS) == ""
    assert fleet.on(HOST, LISTENERS.replace("8009", "8002")) != ""
    fleet.on(HOST, f"rm -r /var/lib/corral/instances/{name} /etc/corral/keys/{name}")


def test_a_rebooted_host_serves_again_by_itself(fleet: Workspace) -> None:
    fleet.on("lab-3", "touch /run/before-the-reboot")
    fleet.try_on("lab-3", "systemctl reboot")
    up = "test ! -e /run/before-the-reboot && systemctl is-system-running"
    wait_for(lambda: fleet.try_on("lab-3", up).stdout.strip() == "running", "lab-3 is up again")
    verify = ("verify", "lab-3", "-i", INVENTORY)
    wait_for(lambda: fleet.corral(*verify).returncode == 0, "all instances of lab-3 serve again")
