"""Second clones of one project, and a fleet's own folder, for hosts that are deployed already."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from openai import AuthenticationError

from tests.installed import build_wheel, install
from tests.lab.clones import INVENTORY, clone, stored
from tests.lab.streams import streams
from tests.lab.test_gateway import ALIAS, CURRENT, GW, SERVERS, client, complete, lab
from tests.lab.test_rollout import NEW, OLD, PROFILE, begun, journal
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import wait_for
from tests.lab.workspace import Workspace

__all__ = ["lab"]
ALL = ("-i", INVENTORY)
KEYS = "sha256sum /etc/corral/keys/*"


def put_there(lab: Workspace) -> dict[str, str]:
    """Keys, staged generations and the gateway's generation."""
    hosts = [name.partition("/")[0] for name in SERVERS]
    looked = f"{KEYS}; ls /var/lib/corral/instances/*/generations"
    return {**{host: lab.on(host, looked) for host in hosts}, GW: lab.on(GW, CURRENT)}


def test_while_a_rollout_is_at_work_a_second_clone_stages_nothing(
    lab: Workspace, tmp_path: Path
) -> None:
    other = clone(lab, tmp_path)
    inventory, state = other.path / INVENTORY, tmp_path / "state"
    # What the second clone would stage: keys, a generation, another port of the gateway.
    text = re.sub(r"'port': 8000\b", "'port': 8010", inventory.read_text())
    inventory.write_text(text)
    assert "'port': 8010" in text
    with lab.edited(PROFILE, OLD, NEW), begun(lab, state, "--soak", "45") as (first, log):
        wait_for(lambda: "soaks for" in log.read_text(), "a wave is done")
        before = put_there(lab)
        by = ("is rolling out", journal(state)["id"])
        assert_refused(other.deploy("--limit", "lab-3"), *by)
        assert_refused(other.deploy("--limit", GW), *by)
        arguments = ("rollout", INVENTORY, "-y", "--state", str(tmp_path / "other"))
        assert_refused(other.corral(*arguments), *by)
        assert put_there(lab) == before
        assert first.wait(600) == 0, log.read_text()
    assert lab.deploy().returncode == 0


def test_a_clone_that_lost_the_store_takes_the_gateways_keys_over_too(
    lab: Workspace, tmp_path: Path
) -> None:
    store, runs = tmp_path / "store", lab.on(GW, CURRENT)
    other = clone(lab, tmp_path, keys_folder=str(store))
    pool = f"{GW}/upstream-tiny-glm-moe"
    assert_refused(other.deploy("--limit", "lab-1"), "corral keys adopt", pool)
    adopted = other.corral("keys", "adopt", *ALL)
    assert adopted.returncode == 0, said(adopted)
    wanted = stored(lab.layout.keys)
    found = stored(store)
    assert found == {name: wanted[name] for name in found}
    assert {pool, f"{GW}/gateway-tiny-glm-moe"} < set(found)
    deployed = other.deploy()
    assert deployed.returncode == 0, said(deployed)
    assert lab.on(GW, CURRENT) == runs
    for one in (lab, other):
        verified = one.corral("verify", *ALL)
        assert verified.returncode == 0, said(verified)


def test_a_client_key_that_only_the_file_of_haproxy_has_is_seen(lab: Workspace) -> None:
    path = "/etc/corral/gateway/current/clients-tiny-glm-moe"
    lab.on(GW, f"cp {path} /root/kept && echo another-key-of-a-client-0123 >> {path}")
    try:
        edited = lab.corral("verify", GW, *ALL)
    finally:
        lab.on(GW, f"cat /root/kept > {path}; rm /root/kept")
    assert edited.returncode == 1
    for check in ("keys-stored", "keys-loaded"):
        assert check in said(edited)
    assert lab.corral("verify", GW, *ALL).returncode == 0


def test_clients_are_let_in_rotated_and_shut_out_and_no_request_fails(
    lab: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    alice, member = ("--gateway", ALIAS, "--client", "alice"), "lab-1/tiny-chat"

    def keys(*words: str) -> str:
        done = lab.corral("keys", *words, *ALL)
        assert done.returncode == 0, said(done)
        return done.stdout

    keys("add", *alice, "-y")
    first, of_member = keys("show", *alice).strip(), stored(lab.layout.keys)[member][0]
    with streams(client(lab, first), ALIAS) as seen:
        seen.wait_for_more()
        keys("rotate", *alice, "-y")
        seen.wait_for_more()
        keys("rotate", member, "-y")
        assert open_to(lab, of_member)
        seen.wait_for_more()
        keys("rotate", member, "--finish", "-y")
        seen.wait_for_more()
    assert seen.failures == []
    assert not open_to(lab, of_member)
    assert open_to(lab, stored(lab.layout.keys)[member][0])
    second = keys("show", *alice).strip()
    with streams(client(lab, second), ALIAS) as seen:
        keys("rotate", *alice, "--finish", "-y")
        seen.wait_for_more()
    assert seen.failures == []
    with pytest.raises(AuthenticationError):
        complete(client(lab, first))
    counted = json.loads(lab.corral("gateway", "clients", "--json", *ALL).stdout)[GW]
    rows = {row["client"]: row for row in counted if row["pool"] == ALIAS}
    assert rows["alice"]["requests"] > 0
    assert rows["alice"]["failed"] == 0
    assert rows[""]["refused"] > 0
    keys("revoke", *alice, "-y")
    with pytest.raises(AuthenticationError):
        complete(client(lab, second))
    assert complete(client(lab))
    journal = (tmp_path / "state/corral/keys.jsonl").read_text()
    assert [json.loads(line)["what"] for line in journal.splitlines()] == [
        "add", "rotate", "rotate", "finish", "finish", "revoke",
    ]  # fmt: skip
    for secret in (first, second, of_member):
        assert secret not in journal
    assert lab.corral("verify", *ALL).returncode == 0


def open_to(lab: Workspace, key: str) -> bool:
    """Whether the server itself accepts a key."""
    url = f"http://{lab.layout.address(1)}:8001/v1/models"
    ask = f"curl --silent --output /dev/null --write-out '%{{http_code}}' --header @- {url}"
    status = lab.on("lab-1", f"{ask} <<'END'\nAuthorization: Bearer {key}\nEND")
    assert status in ("200", "401")
    return status == "200"


def test_a_host_is_deployed_from_a_fleets_own_folder(lab: Workspace, tmp_path: Path) -> None:
    """With Corral installed from its wheel; an own entry of the catalog is served."""
    installed = install(build_wheel(tmp_path / "wheel"), tmp_path)
    made = installed.run("corral", "init", "fleet", folder=tmp_path)
    assert made.returncode == 0, made.stdout + made.stderr
    fleet, inventory = tmp_path / "fleet", "inventories/prod.py"
    shutil.copy(clone(lab, tmp_path).path / INVENTORY, fleet / inventory)
    shutil.copy(lab.path / "corral.lock", fleet)
    name = PROFILE.rpartition("/")[2].removesuffix(".toml")
    (fleet / "catalog" / "profiles").mkdir()
    (fleet / PROFILE).write_text(f'extends = "{name}"\nprompt_cache_mib = 7\n')
    command = ("pyinfra", inventory, "deploy.py", "-y", "--limit", "lab-1")
    diff = ("corral", "diff", "lab-1")
    try:
        before = installed.run(*diff, folder=fleet)
        assert before.returncode == 2, before.stdout + before.stderr
        assert "--cache-ram " in before.stdout
        done = installed.run(*command, folder=fleet)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "--cache-ram 7" in lab.on("lab-1", "systemctl cat 'corral-tiny-*'")
        pids = lab.on("lab-1", "systemctl show -P MainPID 'corral-tiny-*.service'")
        again = installed.run(*command, folder=fleet)
        assert again.returncode == 0, again.stdout + again.stderr
        assert lab.on("lab-1", "systemctl show -P MainPID 'corral-tiny-*.service'") == pids
        after = installed.run(*diff, folder=fleet)
        assert (after.returncode, after.stdout) == (0, "no change: lab-1\n"), after.stderr
        status = installed.run("corral", "status", "lab-1", folder=fleet)
        assert status.returncode == 0, status.stdout + status.stderr
    finally:
        assert lab.deploy("--limit", "lab-1").returncode == 0
