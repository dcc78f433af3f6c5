"""A host without a network: everything comes from a bundle, and a change from a second one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import engine_source
from lab.hosts import connection_data
from lab.layout import GIT_PORT, HUB_PORT
from tests.lab.extra_host import extra_host
from tests.lab.untouched import said
from tests.lab.waiting import wait_for
from tests.lab.workspace import Done, Workspace

N = 4
HOST = f"lab-{N}"
INVENTORY = "inventories/bundled.py"
PORT = 8095
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
    signed: Done
    bare: str
    reached: list[int]
    deployed: Done
    verified: Done
    sources: str
    changed: Done
    verified_changed: Done
    served: str
    files: str


def inventory(lab: Workspace, quant: str, **data: object) -> None:
    """One host with one instance; ``data``: more of the host."""
    chat = {"name": "chat", "profile": "tiny-chat", "port": 8001, "quant": quant}
    own = {
        **connection_data(lab.layout, N), "disposable": True, "hub_url": lab.layout.hub_url,
        "engine_sources": engine_source.urls(lab.layout),
        "keys_folder": str(lab.layout.keys), "archives_folder": str(lab.layout.archives), **data,
        "instances": [chat],
    }  # fmt: skip
    (lab.path / INVENTORY).write_text(f"servers = [({HOST!r}, {own!r})]\n")


@contextmanager
def cut(lab: Workspace) -> Iterator[None]:
    """The host reaches nothing but this controller, and there neither hub nor sources."""
    table, host = f"corral_cut_{lab.layout.lab_id}", lab.layout.address(N)
    ports = f"{HUB_PORT}, {HUB_PORT + 1}, {GIT_PORT}"
    rules = f"""table ip {table} {{
  chain forward {{ type filter hook forward priority -10; ip saddr {host} drop; }}
  chain input {{
    type filter hook input priority -10; ip saddr {host} tcp dport {{ {ports} }} drop;
  }}
}}
"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "ip", table], check=True)


@contextmanager
def served(lab: Workspace, log: Path, *folders: Path) -> Iterator[None]:
    address = str(lab.layout.controller_address)
    words = ("bundle", "serve", *map(str, folders), "--address", address, "--port", str(PORT))
    process = lab.start_corral(*words, log=log)
    try:
        wait_for(lambda: "serving " in log.read_text(), "the bundle is served")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(10)


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
    url = f"http://{lab.layout.controller_address}:{PORT}"
    with extra_host(lab, N), pytest.MonkeyPatch.context() as patch:
        inventory(lab, "Q8_0")
        locked = (lab.path / "corral.lock").read_bytes()
        assert lab.corral("lock", INVENTORY).returncode == 0
        signing = ("--sign-with", str(secret), "--passphrase-stdin")
        written = lab.corral(
            "bundle", "-o", str(first), INVENTORY, *signing, stdin=f"{PASSPHRASE}\n"
        )
        assert written.returncode == 0, said(written)
        bare = lab.on(HOST, BARE)
        # Another controller: without the archives and headers of this one.
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        bundle = {"url": url, "public_key": str(public), "folder": str(first)}
        elsewhere = {"archives_folder": str(folder / "archives")}
        try:
            with cut(lab):
                reached = looked(lab)
                signed = lab.corral("bundle", "verify", str(first), "--public-key", str(public))
                inventory(lab, "Q8_0", bundle=bundle, **elsewhere)
                with served(lab, log, first):
                    deployed = lab.deploy(inventory=INVENTORY)
                    assert deployed.returncode == 0, said(deployed)
                    verified = lab.corral("verify", HOST, "-i", INVENTORY)
                sources = lab.on(HOST, "cat /etc/corral/apt/bundle.sources")
                inventory(lab, "F16")
                written = lab.corral(
                    "bundle", "-o", str(second), INVENTORY, "--since", str(first), *signing,
                    stdin=f"{PASSPHRASE}\n",
                )  # fmt: skip
                assert written.returncode == 0, said(written)
                bundle["folder"] = str(second)
                inventory(lab, "F16", bundle=bundle, **elsewhere)
                with served(lab, folder / "second.log", second):
                    changed = lab.deploy(inventory=INVENTORY)
                    assert changed.returncode == 0, said(changed)
                    verified_changed = lab.corral("verify", HOST, "-i", INVENTORY)
                models = lab.on(HOST, "find /var/lib/corral/models -name '*.gguf'")
            yield Seen(
                first=first, second=second, signed=signed, bare=bare, reached=reached,
                deployed=deployed, verified=verified, sources=sources, changed=changed,
                verified_changed=verified_changed, served=log.read_text(), files=models,
            )  # fmt: skip
        finally:
            (lab.path / "corral.lock").write_bytes(locked)
            (lab.path / INVENTORY).unlink()


def sizes(folder: Path) -> dict[str, int]:
    found = json.loads((folder / "bundle.json").read_text())
    return {file["name"]: file["size_bytes"] for file in found["files"]}


def test_the_host_had_nothing_and_reaches_nothing(seen: Seen) -> None:
    assert seen.bare == "bare"
    assert 0 not in seen.reached


def test_a_bundle_is_proved_where_it_arrives(seen: Seen) -> None:
    assert seen.signed.returncode == 0, said(seen.signed)
    assert "all as the manifest says" in seen.signed.stdout


def test_a_bare_host_serves_from_the_bundle_alone(seen: Seen) -> None:
    assert seen.deployed.returncode == 0, said(seen.deployed)
    assert seen.verified.returncode == 0, said(seen.verified)
    assert "Signed-By:" in seen.sources
    assert "/apt/debian-12/./aria2_" in seen.served
    assert ".gguf 206" in seen.served or ".gguf 200" in seen.served


def test_a_second_smaller_bundle_brings_another_quant(seen: Seen) -> None:
    small = sizes(seen.second)
    assert [name for name in small if name.startswith("weights/")]
    assert not [name for name in small if name.endswith((".deb", ".tar.zst"))]
    assert sum(small.values()) < sum(sizes(seen.first).values()) / 10
    assert seen.changed.returncode == 0, said(seen.changed)
    assert seen.verified_changed.returncode == 0, said(seen.verified_changed)
    assert "F16" in seen.files
