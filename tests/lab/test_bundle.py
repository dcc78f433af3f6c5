"""Hosts without a network: everything comes from a bundle, and a change from a second one.

The first is deployed by ssh alone to a swarm of two, the second from an address of the controller.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import engine_source, nvidia_packages, wheel_index
from lab.edits import written
from lab.faults import Rule
from lab.hosts import connection_data
from lab.layout import GIT_PORT, HUB_PORT
from lab.package_repository import Repository
from tests.lab.extra_host import extra_host
from tests.lab.gpu_fleet import CATALOG, NEW, insert_card, offered_by
from tests.lab.test_third_engine import engine_added, wheels_served
from tests.lab.untouched import said
from tests.lab.waiting import PATIENCE_SECONDS, wait_for
from tests.lab.workspace import CHECKOUT, Done, Workspace

# The second has the packages already.
N, SECOND = 4, 5
HOST, HOSTS = f"lab-{N}", (f"lab-{N}", f"lab-{SECOND}")
INVENTORY = "inventories/bundled.py"
PORT = 8095
DISK = "/srv/first"
PASSPHRASE = "correct horse"  # noqa: S105
BARE = "ls -d /opt/corral /etc/corral 2>/dev/null || command -v aria2c zstd g++ || echo bare"
# Package mirrors by the controller's masquerading, its hub and its git daemon: nothing answers.
REACHES = (
    "timeout 3 apt-get -qq -o Acquire::Retries=0 --error-on=any update",
    "timeout 3 curl --silent --head http://{controller}:{port}/",
)


@dataclass(frozen=True)
class Seen:
    """What was written, and how the host was and became."""

    first: Path
    second: Path
    unfinished: Done
    written: Done
    signed: Done
    bare: str
    reached: list[int]
    cut_short: str
    deployed: Done
    verified: Done
    sources: str
    driver: str
    installed: Done
    changed: Done
    verified_changed: Done
    served: str
    files: str


def inventory(
    lab: Workspace,
    quant: str,
    data: dict[str, object] | None = None,
    *,
    members: Sequence[int] = (N,),
) -> None:
    """Hosts with one instance each, the first with a card and two; ``data``: more of each host."""
    chat = {"name": "chat", "profile": "tiny-chat", "port": 8001, "quant": quant}
    echo = {"name": "echo", "profile": "echo", "port": 8003, "activation": "in-place"}
    card = {"name": "NVIDIA A100-PCIE-40GB", "count": 1, "compute_capability": "8.0"}
    own = {N: {"instances": [chat, echo], "gpus": card, "backend": "cpu"}}
    shared = {
        "disposable": True, "hub_url": lab.layout.hub_url,
        "engine_sources": engine_source.urls(lab.layout),
        "keys_folder": str(lab.layout.keys), "archives_folder": str(lab.layout.archives),
        "instances": [chat], "swarm": True, **(data or {}),
    }  # fmt: skip
    servers = [
        (f"lab-{n}", {**connection_data(lab.layout, n), **shared, **own.get(n, {})})
        for n in members
    ]
    (lab.path / INVENTORY).write_text(f"servers = {servers!r}\n")


@contextmanager
def cut(
    lab: Workspace, *, ports: str = f"{HUB_PORT}, {HUB_PORT + 1}, {GIT_PORT}"
) -> Iterator[None]:
    """Hosts reach each other alone, and on this controller none of these TCP ports."""
    table = f"corral_cut_{lab.layout.lab_id}"
    host = f"{{ {lab.layout.address(N)}, {lab.layout.address(SECOND)} }}"
    # Answers of the hosts' sshd stay: only what begins a connection is dropped.
    rules = f"""table ip {table} {{
  chain forward {{
    type filter hook forward priority -10;
    ip saddr {host} ip daddr != {host} drop;
  }}
  chain input {{
    type filter hook input priority -10;
    ip saddr {host} tcp dport {{ {ports} }} tcp flags & (syn | ack) == syn drop;
    ip saddr {host} meta l4proto udp drop;
  }}
}}
"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "ip", table], check=True)


@contextmanager
def served(
    lab: Workspace, log: Path, *folders: Path, ssh: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """+ ssh: hosts that reach it by ssh connections of this controller, else at its address."""
    at = ("--address", str(lab.layout.controller_address), "--port", str(PORT))
    way = ("--ssh", INVENTORY) if ssh else at
    process = lab.start_corral("bundle", "serve", *map(str, folders), *way, log=log)
    ready = [f"{host}: reaches the bundle" for host in ssh] or ["serving "]

    def is_ready() -> bool:
        text = log.read_text()
        return all(line in text for line in ready)

    try:
        wait_for(lambda: is_ready() or process.poll() is not None, "the bundle is served")
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def more_kinds(lab: Workspace, folder: Path) -> Iterator[wheel_index.Index]:
    """An engine of wheels, and a driver in a repository of its own, both on this controller."""
    (folder / "wheels").mkdir()
    repository = Repository.make(folder / "drivers")
    repository.publish(*nvidia_packages.driver(NEW))
    catalog = lab.path / CATALOG
    with (
        wheels_served(lab, folder / "wheels") as index,
        engine_added(lab, index),
        repository.served(str(lab.layout.controller_address)) as url,
        written(catalog, offered_by(url, repository, catalog.read_text())),
    ):
        yield index


def write(lab: Workspace, folder: Path, secret: Path, *more: str) -> Done:
    words = ("bundle", "-o", str(folder), INVENTORY, "--sign-with", str(secret))
    return lab.corral(*words, "--passphrase-stdin", *more, stdin=f"{PASSPHRASE}\n")


def kill_a_writer(lab: Workspace, folder: Path, log: Path) -> Done:
    """Kill `corral bundle` while weights arrive; returns what a proof says then."""
    slow = Rule(match="/cdn/*Q8_0.gguf", kind="slow", bytes_per_second=20_000, times=1)
    with lab.hub_faults(slow):
        process = lab.start_corral("bundle", "-o", str(folder), INVENTORY, log=log)
        parts = (folder / ".work").glob
        wait_for(
            lambda: any(path.stat().st_size > 30_000 for path in parts("*.part")),
            "a part of the weights",
        )
        process.kill()
        process.wait(10)
    return lab.corral("bundle", "verify", str(folder))


def kill_a_server(lab: Workspace, first: Path, log: Path) -> str:
    """Kill `corral bundle serve` while packages arrive; returns what the deploy says."""
    with served(lab, log, first, ssh=[HOST]) as server:
        deploy = lab.start_deploy(inventory=INVENTORY)
        wait_for(
            lambda: ".deb 20" in log.read_text() or deploy.poll() is not None,
            "packages",
        )
        server.kill()
        output, _ = deploy.communicate(timeout=PATIENCE_SECONDS)
    assert deploy.returncode == 1, output
    return str(output)


def install_product(lab: Workspace, first: Path, public: Path) -> Done:
    """As the runbook has it: Corral from the bundle, on a machine that has nothing of it."""
    copy = f"tar -C {first} --exclude .work -cf - . | ssh -F {lab.layout.ssh_config} {HOST} "
    copy += f"'mkdir -p {DISK} && tar -C {DISK} -xf -'"
    subprocess.run(["sh", "-c", copy], check=True)
    lab.on(HOST, f"cat > /root/fleet.pub <<'END'\n{public.read_text()}END")
    script = "\n".join(["set -eux", "cd /root", *runbook_commands()])
    return lab.try_on(HOST, script)


def runbook_commands() -> list[str]:
    """The commands of the runbook to install and prove beside the hosts."""
    text = (CHECKOUT / "docs/runbooks/without-a-network.md").read_text()
    block = text.split("## Beside the hosts")[1].split("```")[1]
    lines = block.replace("\\\n", "").strip().splitlines()
    return [line.replace("/media/disk/first", DISK) for line in lines]


def keys(folder: Path) -> tuple[Path, Path]:
    public, secret = folder / "bundle.pub", folder / "bundle.key"
    subprocess.run(
        ["minisign", "-G", "-p", str(public), "-s", str(secret)],
        input=f"{PASSPHRASE}\n{PASSPHRASE}\n", text=True, check=True, capture_output=True,
    )  # fmt: skip
    return public, secret


def looked(lab: Workspace) -> list[int]:
    """Exit codes of what would reach a network."""
    names = {"controller": lab.layout.controller_address, "port": HUB_PORT}
    return [lab.try_on(HOST, look.format(**names)).returncode for look in REACHES]


@pytest.fixture(scope="module")
def seen(deployed_once: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    lab, folder = deployed_once, tmp_path_factory.mktemp("bundles")
    first, second, log = folder / "first", folder / "second", folder / "served.log"
    public, secret = keys(folder)
    with (
        extra_host(lab, N), extra_host(lab, SECOND, "--provisioned"),
        more_kinds(lab, folder) as index, pytest.MonkeyPatch.context() as patch,
    ):  # fmt: skip
        insert_card(lab, HOST)
        inventory(lab, "Q8_0", members=(N, SECOND))
        locked = (lab.path / "corral.lock").read_bytes()
        assert lab.corral("lock", INVENTORY).returncode == 0
        unfinished = kill_a_writer(lab, first, folder / "killed.log")
        since = len((lab.layout.log / "hub.log").read_text())
        written = write(lab, first, secret)
        assert written.returncode == 0, said(written)
        resumed = (lab.layout.log / "hub.log").read_text()[since:]
        assert " 206 " in resumed, resumed
        bare = lab.on(HOST, BARE)
        # Another controller: without the archives and headers of this one.
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        elsewhere: dict[str, object] = {"archives_folder": str(folder / "archives")}
        bundle = {"url": f"http://127.0.0.1:{PORT}", "public_key": str(public)}
        try:
            with cut(lab, ports="1-65535"):
                reached, asked = looked(lab), len(index.asked)
                signed = lab.corral("bundle", "verify", str(first), "--public-key", str(public))
                own = {"bundle": {**bundle, "folder": str(first)}, **elsewhere}
                inventory(lab, "Q8_0", own)
                cut_short = kill_a_server(lab, first, folder / "cut.log")
                inventory(lab, "Q8_0", own, members=(N, SECOND))
                with served(lab, log, first, ssh=HOSTS):
                    deployed = lab.deploy(inventory=INVENTORY)
                    assert deployed.returncode == 0, said(deployed)
                    verified = lab.corral("verify", *HOSTS, "-i", INVENTORY)
                assert index.asked[asked:] == []
                driver = lab.on(HOST, "dpkg-query --show --showformat='${Version}' nvidia-open")
                sources = lab.on(HOST, "cat /etc/corral/apt/bundle.sources")
                installed = install_product(lab, first, public)
            inventory(lab, "F16")
            smaller = write(lab, second, secret, "--since", str(first))
            assert smaller.returncode == 0, said(smaller)
            with cut(lab):
                bundle["url"] = f"http://{lab.layout.controller_address}:{PORT}"
                inventory(lab, "F16", {"bundle": {**bundle, "folder": str(second)}, **elsewhere})
                with served(lab, folder / "second.log", second):
                    changed = lab.deploy(inventory=INVENTORY)
                    assert changed.returncode == 0, said(changed)
                    verified_changed = lab.corral("verify", HOST, "-i", INVENTORY)
                models = lab.on(HOST, "find /var/lib/corral/models -name '*.gguf'")
            yield Seen(
                first=first, second=second, unfinished=unfinished,
                written=written, signed=signed, bare=bare, reached=reached, cut_short=cut_short,
                deployed=deployed, verified=verified, sources=sources, driver=driver,
                installed=installed, changed=changed, verified_changed=verified_changed,
                served=log.read_text(), files=models,
            )  # fmt: skip
        finally:
            (lab.path / "corral.lock").write_bytes(locked)
            (lab.path / INVENTORY).unlink()


def sizes(folder: Path) -> dict[str, int]:
    found = json.loads((folder / "bundle.json").read_text())
    return {file["name"]: file["size_bytes"] for file in found["files"]}


def test_a_killed_writer_leaves_no_bundle_and_is_gone_on_with(seen: Seen) -> None:
    assert seen.unfinished.returncode == 1
    assert "is not complete: writing it was interrupted" in said(seen.unfinished)
    assert "run the same `corral bundle -o FOLDER INVENTORY` again" in said(seen.unfinished)
    assert "signed. Next: `corral bundle verify" in said(seen.written)


def test_the_host_had_nothing_and_reaches_nothing(seen: Seen) -> None:
    assert seen.bare == "bare"
    assert 0 not in seen.reached


def test_a_bundle_is_proved_where_it_arrives(seen: Seen) -> None:
    assert seen.signed.returncode == 0, said(seen.signed)
    assert "all as the manifest says" in seen.signed.stdout


def test_a_deploy_whose_bundle_is_not_served_any_more_says_so(seen: Seen) -> None:
    assert f"127.0.0.1:{PORT}" in seen.cut_short
    assert "Traceback" not in seen.cut_short


def test_a_bare_host_serves_from_the_bundle_alone_by_ssh(seen: Seen) -> None:
    assert seen.deployed.returncode == 0, said(seen.deployed)
    assert seen.verified.returncode == 0, said(seen.verified)
    assert "Signed-By:" in seen.sources
    assert "/apt/debian-12/./InRelease" in seen.served


def test_an_engine_of_wheels_and_a_driver_come_from_the_bundle(seen: Seen) -> None:
    assert "/wheels/echo_engine-1.0-py3-none-any.whl 200" in seen.served
    assert seen.driver == f"{NEW}-1"


def test_of_two_hosts_one_takes_the_weights_from_the_bundle(seen: Seen) -> None:
    # Each of them reads its header, which is a part.
    assert len(re.findall(r"GET \S+\.gguf 200$", seen.served, re.MULTILINE)) == 1, seen.served
    assert "Group: " in said(seen.deployed)


def test_corral_itself_is_installed_from_the_bundle_as_the_runbook_has_it(seen: Seen) -> None:
    assert seen.installed.returncode == 0, said(seen.installed)
    assert "all as the manifest says" in seen.installed.stdout


def test_a_second_smaller_bundle_brings_another_quant(seen: Seen) -> None:
    small = sizes(seen.second)
    assert [name for name in small if name.startswith("weights/")]
    assert not [name for name in small if name.endswith((".deb", ".tar.zst"))]
    assert sum(small.values()) < sum(sizes(seen.first).values()) / 10
    assert seen.changed.returncode == 0, said(seen.changed)
    assert seen.verified_changed.returncode == 0, said(seen.verified_changed)
    assert "F16" in seen.files
