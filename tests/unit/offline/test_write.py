"""A whole bundle: written, interrupted, written on, and a smaller one on top of it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from corral.catalog.drivers import AptSource, DriverSource, PinnedPackages
from corral.errors import CorralError
from corral.offline import write as module
from corral.offline.fetch import Source
from corral.offline.manifest import Bundle, Product, read_bundle
from corral.offline.needs import (
    EngineSources,
    Needs,
    PackageSet,
    StoredArchive,
    image_name,
    sources_name,
)
from corral.offline.routes import Routes
from corral.offline.serve import serving as bundle_served
from corral.offline.verify import Opened, prove
from corral.offline.write import Options, write_bundle
from corral.plan.release import OwnImage
from corral.store.engine_archives import Archive, ArchiveStore
from lab.nvidia_packages import driver
from lab.package_repository import KEY_FILE, DebPackage, Repository
from tests.samples import CHAT, EXAMPLES, catalog, host, planner
from tests.unit import helper_hosts
from tests.unit.helper_modules import helper_module
from tests.unit.offline import made
from tests.unit.ranged_server import RangedServer, Served, serving

pytestmark = pytest.mark.slow

ESSENTIAL = DebPackage("base", "1:1.0", {"Essential": "yes"})
DEMO = DebPackage("demo", "2.0-1", {"Depends": "helper (>= 1)"})
HELPER = DebPackage("helper", "1.5")
UNWANTED = DebPackage("unwanted", "9")
WEIGHTS = b"w" * 300_000
MORE = b"m" * 200_000


@dataclass
class Site:
    """What a bundle is made from, and what was reported."""

    folder: Path
    server: RangedServer
    repository: Repository
    options: dict[str, Any] = field(default_factory=dict)
    reported: list[str] = field(default_factory=list)

    def needs(self, *names: str) -> Needs:
        contents = {"a.gguf": WEIGHTS, "b.gguf": MORE}
        store = ArchiveStore(self.folder / "store")
        return Needs(
            hosts=("node-1",),
            weights={f"weights/acme/Tiny/{'a' * 40}/{n}": self.source(n, contents[n])
                     for n in names},
            archives=(StoredArchive(self.archive(store), store),),
            packages={"debian-12": (PackageSet(("demo",)),)},
        )  # fmt: skip

    def source(self, name: str, content: bytes) -> Source:
        self.server.files.setdefault(name, Served(content, total_bytes=len(content)))
        digest = hashlib.sha256(content).hexdigest()
        return Source(url=f"{self.server.url}/{name}", sha256=digest, size_bytes=len(content))

    def archive(self, store: ArchiveStore) -> Archive:
        content, key = b"packed", f"{'c0' * 6}-cpu-12345678"
        archive = Archive(
            engine="llama.cpp", key=key, size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(), manifest={"flags": []},
        )  # fmt: skip
        if not store.find("llama.cpp", key):
            incoming = store.incoming("llama.cpp", key)
            incoming.write_bytes(content)
            store.add(incoming, archive)
        return archive

    def write(self, name: str, *weights: str, since: Path | None = None) -> Bundle:
        options = Options(sources=self.options, since=since)
        return write_bundle(
            self.folder / name, EXAMPLES, self.needs(*weights), catalog(), options,
            self.reported.append,
        )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    product = Product(version="0.1.0", python="3.11 x86_64")
    monkeypatch.setattr(module, "add_product", lambda *_: (product, []))
    repository = Repository.make(tmp_path / "repository")
    repository.publish(ESSENTIAL, DEMO, HELPER, UNWANTED)
    with serving() as server, repository.served("127.0.0.1") as url:
        sources = tmp_path / "debian.sources"
        key = tmp_path / "repository/public/key.asc"
        sources.write_text(f"Types: deb\nURIs: {url}\nSuites: /\nSigned-By: {key}\n")
        yield Site(tmp_path, server, repository, {"debian-12": sources})


def names(bundle: Bundle, kind: str) -> set[str]:
    return {Path(file.name).name for file in bundle.of(kind)}


def test_a_bundle_has_weights_releases_and_packages_with_what_they_depend_on(site: Site) -> None:
    bundle = site.write("disk", "a.gguf")
    assert names(bundle, "weights") == {"a.gguf"}
    assert names(bundle, "apt") == {
        "demo_2.0-1_amd64.deb", "helper_1.5_amd64.deb", "base_1.0_amd64.deb", "Packages",
        "InRelease",
    }  # fmt: skip
    assert len(names(bundle, "archives")) == 2
    assert "corral.lock" in names(bundle, "lock")
    assert bundle == read_bundle(site.folder / "disk")
    prove(Opened(site.folder / "disk"), made.quiet)


def test_apt_trusts_its_packages_by_the_key_of_the_manifest_alone(
    site: Site, tmp_path: Path
) -> None:
    bundle = site.write("disk", "a.gguf")
    release = site.folder / "disk/apt/debian-12/InRelease"
    (tmp_path / "key.asc").write_text(bundle.apt_key)
    ring = tmp_path / "key.gpg"
    subprocess.run(
        ["gpg", "--batch", "--dearmor", "-o", str(ring), str(tmp_path / "key.asc")], check=True
    )
    check = ["gpgv", "--keyring", str(ring), str(release)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    digest = hashlib.sha256((release.parent / "Packages").read_bytes()).hexdigest()
    assert digest in release.read_text()
    release.write_text(release.read_text().replace(digest, "0" * 64))
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0


def test_a_killed_run_is_gone_on_with_and_is_no_bundle_meanwhile(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(module, "add_packages", die)
        with pytest.raises(KeyboardInterrupt):
            site.write("disk", "a.gguf")
    with pytest.raises(CorralError, match="writing it was interrupted"):
        read_bundle(site.folder / "disk")
    asked = len(site.server.requests)
    assert names(site.write("disk", "a.gguf"), "weights") == {"a.gguf"}
    assert len(site.server.requests) == asked


def test_a_second_bundle_has_only_what_the_first_lacks(site: Site) -> None:
    first = site.write("first", "a.gguf")
    second = site.write("second", "a.gguf", "b.gguf", since=site.folder / "first")
    assert names(second, "weights") == {"b.gguf"}
    assert names(second, "apt") == {"Packages", "InRelease"}
    assert [f.name for f in second.of("archives")] == [
        f.name for f in first.of("archives") if f.name.endswith(".json")
    ]
    assert {file.name for file in first.files} <= set(second.needed)
    assert second.since
    prove(Opened(site.folder / "second"), made.quiet)


def test_the_manifest_of_the_first_bundle_is_enough_for_a_second(
    site: Site, tmp_path: Path
) -> None:
    site.write("first", "a.gguf")
    (tmp_path / "kept").mkdir()
    shutil.copy(site.folder / "first/bundle.json", tmp_path / "kept")
    second = site.write("second", "a.gguf", "b.gguf", since=tmp_path / "kept/bundle.json")
    assert names(second, "weights") == {"b.gguf"}
    # The index of packages is made of them: they are fetched again.
    assert "demo_2.0-1_amd64.deb" in names(second, "apt")


def test_what_is_not_wanted_any_more_goes(site: Site) -> None:
    site.write("disk", "a.gguf", "b.gguf")
    site.repository.publish(ESSENTIAL, DebPackage("demo", "2.1"))
    bundle = site.write("disk", "b.gguf")
    folder = site.folder / "disk"
    assert not list(folder.rglob("a.gguf"))
    assert names(bundle, "apt") >= {"demo_2.1_amd64.deb"}
    assert not list(folder.rglob("helper*"))


def test_an_engine_without_an_archive_comes_as_its_sources_once(site: Site) -> None:
    repository = site.folder / "engine"
    spec: dict[str, Any] = {"artifact": {}}
    helper_hosts.repository(repository, spec)
    url, commit = spec["artifact"]["source_url"], spec["commit"]
    name = sources_name("llama.cpp", commit)
    sources = {name: EngineSources("llama.cpp", url, commit, "node-1 builds llama.cpp x")}
    needs = replace(site.needs("a.gguf"), sources=sources)

    def write(folder: str, since: Path | None = None) -> Bundle:
        options = Options(sources=site.options, since=since)
        return write_bundle(
            site.folder / folder, EXAMPLES, needs, catalog(), options, site.reported.append
        )

    assert [file.name for file in write("first").of("sources")] == [name]
    assert "sources of llama.cpp: node-1 builds llama.cpp x" in site.reported
    repository.rename(site.folder / "away")
    assert [file.name for file in write("first").of("sources")] == [name]
    second = write("second", since=site.folder / "first")
    assert second.of("sources") == []
    assert name in second.needed
    with pytest.raises(CorralError, match="engine llama.cpp: cannot fetch commit") as error:
        write("third")
    assert "engine_sources" in error.value.next_step


@pytest.mark.parametrize("by_url", [False, True])
def test_an_image_of_the_sites_own_gets_to_a_host_by_its_digest(site: Site, by_url: bool) -> None:
    content = b"hsqs and so on"
    digest, path = hashlib.sha256(content).hexdigest(), site.folder / "site.squashfs"
    path.write_bytes(content)
    source = site.source("site.squashfs", content).url if by_url else str(path)
    own = OwnImage(
        source=source, sha256=digest, image="site.squashfs", program="/app/llama-server",
        platform="debian-12",
    )  # fmt: skip
    planned = planner().plan_host(host(CHAT)).releases[0]
    needs = replace(site.needs("a.gguf"), images=(planned.model_copy(update={"artifact": own}),))
    folder = site.folder / "disk"
    write_bundle(folder, EXAMPLES, needs, catalog(), Options(sources=site.options), made.quiet)
    path.unlink()
    opened = Opened(folder)
    routes = Routes([(opened, prove(opened, made.quiet))])
    with bundle_served("127.0.0.1", 0, routes, made.quiet) as url:
        address = f"{url}/{image_name(digest, 'site.squashfs')}"
        helper_module("release.image").obtain(
            {"artifact": {"source": address}, "limits": {"unpacked_bytes": 1000}}, path
        )
    assert path.read_bytes() == content


def test_drivers_come_from_their_own_repository_pinned_and_by_their_own_key(
    site: Site, tmp_path: Path
) -> None:
    theirs = Repository.make(tmp_path / "drivers")
    theirs.publish(*driver("580.105.08"), *driver("590.48.01"))
    with theirs.served("127.0.0.1") as url:
        real = catalog().drivers["debian-12"]
        source = AptSource(
            uri=url, key_url=f"{url}{KEY_FILE}", key_fingerprint=theirs.fingerprint
        )  # fmt: skip
        pinned = PinnedPackages(
            version="580.*", packages=("nvidia-open",), pins=("src:*nvidia*:any",)
        )
        ours = real.model_copy(update={"source": source, "driver": pinned})
        first = PackageSet(("demo",))
        needs = site.needs("a.gguf")

        def write(name: str, wanted: DriverSource) -> Bundle:
            packages: dict[str, tuple[PackageSet, ...]] = {
                "debian-12": (
                    first,
                    PackageSet(wanted.driver.packages, (wanted.driver,), wanted.source, "f.toml"),
                )
            }
            return write_bundle(
                site.folder / name, EXAMPLES, replace(needs, packages=packages), catalog(),
                Options(sources=site.options), made.quiet,
            )  # fmt: skip

        found = names(write("disk", ours), "apt")
        assert {
            "nvidia-open_580.105.08-1_amd64.deb",
            "libnvidia-ml1_580.105.08-1_amd64.deb",
        } < found
        assert not [name for name in found if "590." in name]
        other = source.model_copy(update={"key_fingerprint": "0" * 40})
        with pytest.raises(CorralError, match=f"holds the key {theirs.fingerprint}, not 0000"):
            write("other", ours.model_copy(update={"source": other}))


def test_a_pinned_program_comes_in_its_version_or_not_at_all(site: Site) -> None:
    versions = [DebPackage("grafana", version) for version in ("12.4.1", "13.0.0")]
    needs, file = site.needs("a.gguf"), "catalog/programs/grafana.toml"

    def write(version: str) -> Bundle:
        pinned = PinnedPackages(version=version, packages=("grafana",))
        sets = (PackageSet(("demo",)), PackageSet(("grafana",), (pinned,), catalog=file))
        return write_bundle(
            site.folder / version.strip("*."), EXAMPLES,
            replace(needs, packages={"debian-12": sets}), catalog(),
            Options(sources=site.options), made.quiet,
        )  # fmt: skip

    site.repository.publish(ESSENTIAL, DEMO, HELPER, *versions)
    found = names(write("12.4.*"), "apt")
    assert {name for name in found if "grafana" in name} == {"grafana_12.4.1_amd64.deb"}
    with pytest.raises(CorralError, match=rf"grafana 11\.\* is pinned in {file}, and the") as error:
        write("11.*")
    assert "have 13.0.0" in error.value.what


def test_packages_of_another_platform_need_its_sources(site: Site) -> None:
    site.options = {}
    needs = site.needs("a.gguf")
    other = Needs(hosts=("x",), packages={"ubuntu-24.04": needs.packages["debian-12"]})
    with pytest.raises(CorralError, match="packages of ubuntu-24.04 are needed") as error:
        write_bundle(
            site.folder / "disk", EXAMPLES, other, catalog(), Options(), site.reported.append
        )
    assert "--sources ubuntu-24.04=FILE" in error.value.next_step


def test_a_package_that_nobody_has_is_one_message(site: Site) -> None:
    site.repository.publish(ESSENTIAL, HELPER)
    with pytest.raises(CorralError, match="demo"):
        site.write("disk", "a.gguf")
