"""What a deploy takes from a bundle: package sources, releases, and what it lacks."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.offline import deploy
from corral.offline.deploy import bundle_of, take_archives
from corral.offline.needs import sources_name
from corral.plan.host import HostPlan
from corral.plan.release import ReleasePlan
from corral.planning.fleet import plan_fleet
from corral.store.engine_archives import Archive, ArchiveStore
from tests.ports import free_port
from tests.samples import CHAT, REPO, REVISION, host, planner
from tests.unit.offline import made

URL = "http://10.20.0.1:8090"
MODEL = f"weights/{REPO}/{REVISION}/Q8_0/Small-Q8_0.gguf"
PACKED = b"an archive"


def bundled(folder: Path, **data: str) -> Host:
    return host(CHAT, bundle={"folder": str(folder), "url": f"{URL}/", **data})


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were served at its address, unless a test asks."""
    monkeypatch.setattr(deploy, "_CONNECT_SECONDS", 1)
    real = deploy._answers
    real.cache_clear()
    monkeypatch.setattr(deploy, "_answers", lambda url: url.startswith(URL) or real(url))


def planned(this: Host) -> HostPlan:
    return planner().plan_host(this)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made.write(tmp_path / "disk")
    return tmp_path / "disk"


def test_hosts_fetch_weights_from_the_bundle_and_serve_the_same_generation(folder: Path) -> None:
    offline, online = planned(bundled(folder)), planned(host(CHAT))
    assert offline.shards[0].url == f"{URL}/{REPO}/resolve/{REVISION}/Q8_0/Small-Q8_0.gguf"
    assert offline.instances[0].generation == online.instances[0].generation
    assert offline.releases[0].key == online.releases[0].key
    commit = online.releases[0].commit
    address = f"{URL}/sources/llama.cpp/{commit}.pack"
    assert offline.releases[0].artifact.source_url == address


def test_package_sources_are_the_bundle_alone_signed_by_its_key(folder: Path) -> None:
    bundle = bundle_of(bundled(folder))
    assert bundle
    files = bundle.apt("debian-12").files
    assert files["/etc/corral/apt/bundle.sources"] == (
        f"Types: deb\nURIs: {URL}/apt/debian-12/\nSuites: ./\nSigned-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n -----END-----\n"
    )
    settings = files["/etc/corral/apt/bundle.conf"]
    assert 'Dir::Etc::SourceParts "-";' in settings
    assert 'Acquire::http::Proxy::10.20.0.1 "DIRECT";' in settings


def test_a_host_of_another_platform_and_without_its_weights_is_one_finding_each(
    folder: Path,
) -> None:
    this = bundled(folder)
    plan = planned(this).model_copy(update={"platform": "ubuntu-24.04"})
    bundle = bundle_of(this)
    assert bundle
    found = bundle.findings(plan, plan.shards, plan.releases, packages=True)
    whats = [finding.what for finding in found]
    assert whats[0] == (
        "the bundle of 2026-11-30T04:00:00Z has packages for debian-12, and the host is "
        "ubuntu-24.04"
    )
    assert whats[1].endswith(f"has no {MODEL.removeprefix('weights/')} as the lock has it")
    assert whats[2].endswith(f"has no llama.cpp {plan.releases[0].key}")
    assert all("corral bundle -o FOLDER INVENTORY" in finding.next_step for finding in found)
    assert bundle.findings(plan, [], [], packages=False) == []


def test_a_release_is_built_from_sources_of_the_bundle(folder: Path) -> None:
    this = bundled(folder)
    release = planned(this).releases[0]
    for commit, count in ((release.commit, 0), ("f" * 40, 1)):
        made.write(folder, {sources_name("llama.cpp", commit): b"a pack"})
        bundle = bundle_of(this)
        assert bundle
        assert len(bundle.findings(planned(this), [], [release], packages=False)) == count


def test_a_bundle_that_nothing_serves_is_advice_where_something_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        this = bundled(folder, url=url)
        bundle = bundle_of(this)
        assert bundle
        assert bundle.findings(planned(this), [], [], packages=True) == []
    monkeypatch.undo()
    deploy._answers.cache_clear()
    (found,) = bundle.findings(planned(this), [], [], packages=True)
    assert found.what.startswith(f"nothing serves the bundle at {url}")
    assert f"corral bundle serve {folder} --ssh INVENTORY" in found.next_step
    assert not found.stops
    assert bundle.findings(planned(this), [], [], packages=False) == []


def test_members_of_a_swarm_have_the_bundle_as_their_hub(folder: Path) -> None:
    spec = {"folder": str(folder), "url": "http://127.0.0.1:8090"}
    pair = [
        host(CHAT, name=name, ssh_hostname=address, swarm=True, bundle=spec)
        for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"))
    ]
    fleet = plan_fleet(pair, planner())
    for name in "ab":
        plan = fleet.plan(name)
        assert plan.swarm
        # Whichever member fetches has it on its own loopback; the others have addresses of the LAN.
        assert [peer.address for peer in plan.swarm.peers] == ["10.0.0.1", "10.0.0.2"]
        assert plan.shards[0].url.startswith("http://127.0.0.1:8090/")


def test_weights_of_another_lock_are_not_those_of_the_bundle(folder: Path) -> None:
    this = bundled(folder)
    plan, (shard, *_) = planned(this), planned(this).shards
    listed = made.described(MODEL, b"other").model_copy(update={"size_bytes": shard.size_bytes})
    for sha256, count in ((shard.sha256, 0), ("e" * 64, 1)):
        file = listed.model_copy(update={"sha256": sha256})
        made.write(folder, elsewhere=(file,))
        bundle = bundle_of(this)
        assert bundle
        assert len(bundle.findings(plan, plan.shards, [], packages=True)) == count


def test_a_bundle_that_is_not_signed_as_the_inventory_says_stops_the_deploy(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "key.pub").write_text("untrusted comment: x\nRWQ\n")
    with pytest.raises(CorralError, match="is not signed"):
        bundle_of(bundled(folder, public_key=str(tmp_path / "key.pub")))
    with pytest.raises(CorralError, match="no such file with a public key"):
        bundle_of(bundled(folder, public_key=str(tmp_path / "absent.pub")))
    assert bundle_of(host(CHAT)) is None


def packed(folder: Path, release: ReleasePlan) -> Archive:
    """A bundle with an archive of a release."""
    archive = Archive(
        engine=release.engine, key=release.key, size_bytes=len(PACKED),
        sha256=hashlib.sha256(PACKED).hexdigest(), manifest={"flags": ["--port"]},
    )  # fmt: skip
    base = f"archives/{release.engine}/{release.key}"
    text = archive.model_dump_json().encode()
    made.write(folder, {f"{base}.tar.zst": PACKED, f"{base}.json": text})
    return archive


def test_releases_get_to_the_store_of_this_controller_once(tmp_path: Path) -> None:
    this = bundled(tmp_path / "disk")
    release = planned(this).releases[0]
    archive = packed(tmp_path / "disk", release)
    store, bundle = ArchiveStore(tmp_path / "store"), bundle_of(this)
    assert bundle
    assert take_archives(bundle, planned(this), store) == 1
    assert store.find(release.engine, release.key) == archive
    assert store.sound(archive)
    assert take_archives(bundle, planned(this), store) == 0


def test_a_rotten_archive_gets_nowhere(tmp_path: Path) -> None:
    this = bundled(tmp_path / "disk")
    release = planned(this).releases[0]
    packed(tmp_path / "disk", release)
    path = tmp_path / "disk" / f"archives/{release.engine}/{release.key}.tar.zst"
    path.write_bytes(PACKED[:-1] + b"X")
    store, bundle = ArchiveStore(tmp_path / "store"), bundle_of(this)
    assert bundle
    with pytest.raises(CorralError, match="do not match its digest"):
        take_archives(bundle, planned(this), store)
    assert store.find(release.engine, release.key) is None
    path.unlink()
    with pytest.raises(CorralError, match="damaged") as error:
        take_archives(bundle, planned(this), store)
    assert "corral bundle verify" in error.value.next_step
