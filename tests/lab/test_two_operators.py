"""Two concurrent deploys over the same hosts do the work once."""

from __future__ import annotations

from tests.lab.untouched import said
from tests.lab.waiting import wait_for_end
from tests.lab.workspace import Done, Workspace

PROFILE = "catalog/profiles/tiny-long.toml"
VALUE = "context_tokens_per_slot = 8192"
STARTS = (
    "journalctl --unit=corral-tiny-long --output=cat --no-pager"
    " --since=@$(stat --format=%Y /run/began) | grep -c '^Starting corral-tiny-long'"
)


def both_deploy(lab: Workspace, *arguments: str) -> list[Done]:
    """Start two deploys at the same time and wait for both."""
    deploys = [lab.start_deploy(*arguments), lab.start_deploy(*arguments)]
    texts = [deploy.communicate()[0] for deploy in deploys]
    return [
        Done(deploy.args, deploy.returncode, text, "")
        for deploy, text in zip(deploys, texts, strict=True)
    ]


def test_a_change_deployed_by_two_at_once_is_activated_once(fleet: Workspace) -> None:
    others = {pair: fleet.pid(*pair) for pair in (("lab-1", "tiny-chat"), ("lab-2", "tiny-f16"))}
    before = fleet.pid("lab-1", "tiny-long")
    fleet.on("lab-1", "touch /run/began")
    with fleet.edited(PROFILE, VALUE, VALUE.replace("8192", "4096")):
        both = both_deploy(fleet)
        pid = fleet.pid("lab-1", "tiny-long")
        third = fleet.deploy()
        assert fleet.pid("lab-1", "tiny-long") == pid
    assert [done.returncode for done in (*both, third)] == [0, 0, 0], [said(done) for done in both]
    assert pid not in (0, before)
    assert fleet.on("lab-1", STARTS) == "1"
    assert {pair: fleet.pid(*pair) for pair in others} == others


def test_a_second_operator_who_wants_something_else_is_told_who_works(fleet: Workspace) -> None:
    job = "corral-job-activate-tiny-long.service"
    fleet.on("lab-1", f"systemd-run --quiet --unit={job} sleep 600")
    written = '{"by": "anna on desk", "at": "2026-01-01T10:00:00", "spec": {}}'
    folder = "/var/lib/corral/jobs/activate-tiny-long"
    fleet.on("lab-1", f"echo '{written}' > {folder}/job.json")
    before = fleet.pid("lab-1", "tiny-long")
    try:
        with fleet.edited(PROFILE, VALUE, VALUE.replace("8192", "4096")):
            refused = fleet.deploy()
    finally:
        fleet.on("lab-1", f"systemctl stop {job}")
    assert refused.returncode == 1
    assert "anna on desk" in said(refused)
    assert "Next: wait for it" in said(refused)
    assert fleet.pid("lab-1", "tiny-long") == before


def test_an_operator_who_looked_before_the_other_ended_restarts_nothing(fleet: Workspace) -> None:
    job = "/var/lib/corral/jobs/activate-tiny-long/job.json"
    fleet.on("lab-1", "systemctl stop corral-tiny-long")
    assert fleet.deploy().returncode == 0
    before = fleet.pid("lab-1", "tiny-long")
    helper = "python3 /usr/local/lib/corral/corral_host.pyz"
    assert "false" in fleet.on("lab-1", f"{helper} start activate-tiny-long < {job}")
    wait_for_end(fleet, "lab-1", "activate-tiny-long", "the job ends")
    assert '"ok": true' in fleet.on("lab-1", f"cat {job.replace('job.json', 'result.json')}")
    assert fleet.pid("lab-1", "tiny-long") == before
