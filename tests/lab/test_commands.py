"""status, start, stop, restart and logs, by instance and by host."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

from corral_shared.names import RECEIPT

from tests.lab.observed import pids
from tests.lab.test_downloads import SHARD
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import PATIENCE_SECONDS, wait_for
from tests.lab.workspace import Workspace

LAB = ("-i", "inventories/lab.py")
CHAT, LONG = ("lab-1", "tiny-chat"), ("lab-1", "tiny-long")
REQUEST = "curl --silent --output /dev/null http://127.0.0.1:8002/v1/models"
INSTANCES = "/var/lib/corral/instances"


def test_status_of_a_converged_fleet_shows_every_proved_generation(
    deployed_once: Workspace,
) -> None:
    done = deployed_once.corral("status", *LAB)
    assert done.returncode == 0, done.stdout + done.stderr
    link = deployed_once.on("lab-1", "readlink /var/lib/corral/instances/tiny-long/current")
    (line,) = [row for row in done.stdout.splitlines() if "tiny-long" in row]
    assert line.split()[:4] == ["lab-1", "tiny-long", "http://127.0.0.1:8002", "active"]
    assert line.split()[-1] == link.removeprefix("generations/")
    states = json.loads(deployed_once.corral("status", "--json", *LAB).stdout)
    assert states["lab-1"]["instances"]["tiny-long"]["pid"] == deployed_once.pid(*LONG)


def test_a_page_shows_the_same_fleet_with_its_figures(
    deployed_once: Workspace, tmp_path: Path
) -> None:
    done = deployed_once.corral("page", "--json", "-o", str(tmp_path / "fleet.html"), *LAB)
    page = json.loads(done.stdout)
    (host,) = [one for one in page["hosts"] if one["name"] == "lab-1"]
    (long,) = [one for one in host["instances"] if one["name"] == "tiny-long"]
    status = json.loads(deployed_once.corral("status", "--json", *LAB).stdout)["lab-1"]
    observed = status["instances"]["tiny-long"]
    assert (long["is_good"], long["problem"]) == (True, "")
    assert (long["generation"], long["since"]) == (
        observed["proved_generation"],
        observed["since"],
    )
    history = json.loads(deployed_once.corral("history", "lab-1", "--json", *LAB).stdout)
    assert [one["at"] for one in host["history"]] == [one["at"] for one in history][:20]
    assert host["unknown"] == []
    drift = json.loads(deployed_once.corral("drift", "lab-1", "--json", *LAB).stdout)
    assert host["drift"] == drift["lab-1"]
    assert all(one["baseline_per_second"] for one in long["speeds"])
    assert 'id="host-lab-1"' in (tmp_path / "fleet.html").read_text()


def test_status_tells_a_planned_generation_from_the_proved_one(fleet: Workspace) -> None:
    link = fleet.on("lab-1", "readlink /var/lib/corral/instances/tiny-long/current")
    with fleet.edited("catalog/profiles/tiny-long.toml", "= 8192", "= 4096"):
        done = fleet.corral("status", "lab-1", *LAB)
        planned = json.loads(fleet.corral("plan", "lab-1", "--json", *LAB).stdout)
    (wanted,) = [i["generation"] for i in planned["instances"] if i["name"] == "tiny-long"]
    (line,) = [row for row in done.stdout.splitlines() if "tiny-long" in row]
    assert done.returncode == 1
    assert line.strip().endswith(f"{link.removeprefix('generations/')}, planned {wanted}")


def test_an_instance_is_stopped_and_started_alone(fleet: Workspace) -> None:
    before = pids(fleet)
    stopped = fleet.corral("stop", "lab-1/tiny-long", *LAB)
    assert (stopped.returncode, stopped.stdout) == (0, "lab-1/tiny-long: stopped\n")
    assert pids(fleet) == {**before, LONG: 0}
    status = fleet.corral("status", "lab-1", *LAB)
    assert status.returncode == 1
    assert "inactive (dead)" in status.stdout
    started = fleet.corral("start", "lab-1/tiny-long", *LAB)
    assert (started.returncode, started.stdout) == (0, "lab-1/tiny-long: ready\n")
    fleet.on("lab-1", "curl --silent --fail http://127.0.0.1:8002/health")
    after = pids(fleet)
    assert {pair for pair in before if before[pair] != after[pair]} == {LONG}


def test_a_host_is_restarted_with_all_its_instances(fleet: Workspace) -> None:
    before = pids(fleet)
    done = fleet.corral("restart", "lab-1", *LAB)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == ["lab-1/tiny-chat: ready", "lab-1/tiny-long: ready"]
    after = pids(fleet)
    assert {pair for pair in before if before[pair] != after[pair]} == {CHAT, LONG}
    assert all(after.values())


def test_an_instance_that_cannot_start_is_reported(fleet: Workspace) -> None:
    unit_file = "/etc/systemd/system/corral-tiny-long.service"
    fleet.on("lab-1", f"sed -i 's/--no-ui/--no-such-flag/' {unit_file}; systemctl daemon-reload")
    done = fleet.corral("restart", "lab-1/tiny-long", *LAB)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "lab-1/tiny-long: failed"
    assert "invalid argument: --no-such-flag" in done.stderr
    assert "Next: " in done.stderr
    assert "Traceback" not in done.stderr


def test_logs_print_the_last_lines_of_an_instance(deployed_once: Workspace) -> None:
    done = deployed_once.corral("logs", "lab-1/tiny-long", "-n", "5", *LAB)
    journal = "journalctl --unit corral-tiny-long --lines 5 --no-pager"
    assert done.returncode == 0
    assert done.stdout.strip() == deployed_once.on("lab-1", journal)
    assert len(done.stdout.splitlines()) >= 5


def test_logs_since_a_moment_are_all_lines_since_then(deployed_once: Workspace) -> None:
    deployed_once.on("lab-1", REQUEST)
    done = deployed_once.corral("logs", "lab-1/tiny-long", "--since", "1h", *LAB)
    assert done.returncode == 0, said(done)
    assert "Invalid API Key" in done.stdout
    tomorrow = "date --date tomorrow +%Y-%m-%d"
    later = deployed_once.on("lab-1", tomorrow)
    none = deployed_once.corral("logs", "lab-1/tiny-long", "--since", later, *LAB)
    assert "Invalid API Key" not in none.stdout


def test_a_rollout_says_what_it_would_do_and_does_nothing(fleet: Workspace) -> None:
    before = pids(fleet)
    idle = fleet.corral("rollout", LAB[1], "--dry-run")
    assert idle.returncode == 0, said(idle)
    # No other test has a generation of this on a host.
    with fleet.edited("catalog/profiles/tiny-long.toml", "= 8192", "= 4608"):
        done = fleet.corral("rollout", LAB[1], "--dry-run", "--json")
    assert done.returncode == 2, said(done)
    found = {one["host"]: one for one in json.loads(done.stdout)["hosts"]}
    (changed,) = found["lab-1"]["instances"]
    assert changed["instance"] == "tiny-long"
    assert any("4608" in text for text in changed["changes"])
    assert pids(fleet) == before
    staged = f"ls {INSTANCES}/tiny-long/generations"
    assert changed["to_generation"] not in fleet.on("lab-1", staged).split()


def weights_of(lab: Workspace, host: str) -> dict[str, list[str]]:
    """Path -> its users."""
    done = lab.corral("weights", host, "--json", *LAB)
    assert done.returncode == 0, said(done)
    return {one["path"]: one["users"] for one in json.loads(done.stdout)[host]["files"]}


def test_weights_are_listed_adopted_from_another_folder_and_pruned(fleet: Workspace) -> None:
    host = "lab-2"
    before = weights_of(fleet, host)
    (path,) = (one for one in before if one.endswith(SHARD))
    assert all(before.values())
    # What an operator copied there by hand. The server has its own open, which is in no folder.
    receipt = f"{path}{RECEIPT}"
    fleet.on(host, f"mkdir /srv/flat && cp {path} /srv/flat/tiny.gguf && rm {path} {receipt}")
    adopted = fleet.corral("weights", "adopt", host, "/srv/flat", *LAB)
    assert adopted.returncode == 0, said(adopted)
    assert f"/srv/flat/tiny.gguf is now {path}" in adopted.stdout
    # Another revision that nobody needs any more.
    left = re.sub("/[0-9a-f]{40}/", f"/{'0' * 40}/", path)
    fleet.on(host, f"mkdir -p $(dirname {left}) && cp -p {path} {receipt} $(dirname {left})")
    assert weights_of(fleet, host)[left] == []
    shown = fleet.corral("weights", "prune", host, "--dry-run", *LAB)
    assert shown.returncode == 0, said(shown)
    assert left in shown.stdout
    assert path not in shown.stdout
    assert fleet.try_on(host, f"test -e {left}").returncode == 0
    pruned = fleet.corral("weights", "prune", host, "-y", *LAB)
    assert pruned.returncode == 0, said(pruned)
    assert weights_of(fleet, host).keys() == before.keys()
    assert fleet.try_on(host, f"test -e {left}").returncode != 0
    idle = fleet.corral("weights", "prune", host, "-y", *LAB)
    assert "all weights are needed" in idle.stdout
    fleet.on(host, "rm -r /srv/flat")


def test_logs_are_followed(deployed_once: Workspace, tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = ("logs", "-f", "-n", "0", "lab-1/tiny-long", *LAB)
    following = deployed_once.start_corral(*arguments, log=log)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "Invalid API Key" not in log.read_text() and time.monotonic() < deadline:
            deployed_once.on("lab-1", REQUEST)
        assert following.poll() is None
        assert "Invalid API Key" in log.read_text()
    finally:
        # With its ssh, which would go on for a minute. No SIGINT: who started the tests in the
        # background of a shell made them ignore it.
        os.killpg(following.pid, signal.SIGTERM)
        following.wait(timeout=PATIENCE_SECONDS)
    wait_for(lambda: is_over(following.pid), "its ssh has ended")


def is_over(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


NAMED_LONG = '{"name": "tiny-long"'
_LONG = '_LONG = {"name": "tiny-long", "profile": "tiny-long", "port": 8002}'
REMOVE_LONG = ("`corral remove lab-1/tiny-long`",)
KEYS = "ls /etc/corral/keys"
SERVES = "curl --silent --fail http://127.0.0.1:8002/health"


def keys_of(fleet: Workspace, host: str) -> Path:
    return fleet.layout.keys / host


def test_an_instance_is_renamed_and_then_moved_to_another_host(fleet: Workspace) -> None:
    """As docs/runbooks/rename-and-move.md says."""
    with fleet.edited("inventories/lab.py", NAMED_LONG, '{"name": "tiny-wide"'):
        shutil.copy(keys_of(fleet, "lab-1") / "tiny-long", keys_of(fleet, "lab-1") / "tiny-wide")
        refused = fleet.deploy("--limit", "lab-1")
        assert_refused(refused, "port 8002 is taken by corral-tiny-long", *REMOVE_LONG)
        shown = fleet.corral("status", "lab-1", *LAB)
        assert "lab-1/tiny-long is not in the inventory" in shown.stderr
        checked = fleet.corral("verify", "lab-1", *LAB)
        assert "it runs, and starts at boot" in checked.stdout
        renamed = fleet.deploy("--limit", "lab-1", "--data", "remove_orphans=true")
        assert renamed.returncode == 0, said(renamed)
        assert fleet.on("lab-1", KEYS).split() == ["tiny-chat", "tiny-wide"]
        assert fleet.corral("verify", "lab-1", *LAB).returncode == 0
        assert fleet.on("lab-1", "ls /var/lib/corral/instances").split() == [
            "tiny-chat", "tiny-wide",
        ]  # fmt: skip
    # Back under its old name, on another host.
    key = (keys_of(fleet, "lab-1") / "tiny-wide").read_text()
    (keys_of(fleet, "lab-3") / "tiny-long").write_text(key)
    with (
        fleet.edited("inventories/lab.py", "_where(n)}, socket_only]", "_where(n)}, _LONG]"),
        fleet.edited("inventories/lab.py", "def _where(", f"{_LONG}\n\n\ndef _where("),
        fleet.edited("inventories/lab.py", "_lab.address(n))}, long]", "_lab.address(n))}]"),
    ):
        moved = fleet.deploy("--limit", "lab-3")
        assert moved.returncode == 0, said(moved)
        fleet.on("lab-3", SERVES)
        # Until then it serves on both hosts.
        fleet.on("lab-1", SERVES)
        for left in ("lab-1/tiny-wide", "lab-3/tiny-socket"):
            removed = fleet.corral("remove", left, "-y", *LAB)
            assert removed.returncode == 0, said(removed)
        assert fleet.try_on("lab-1", SERVES).returncode != 0
        verified = fleet.corral("verify", *LAB)
        assert verified.returncode == 0, said(verified)
    gone = fleet.corral("remove", "lab-3/tiny-long", "-y", *LAB)
    assert gone.returncode == 0, said(gone)
