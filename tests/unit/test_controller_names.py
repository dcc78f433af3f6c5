"""Names from hosts, inventories, archives and catalogs that become paths on the controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.bench.result import Result
from corral.bench.store import Pending, ResultStore
from corral.catalog.entries import load_catalog
from corral.errors import CorralError
from corral.inventory.hosts import Host, HostSpec, parse_host
from corral.lock.lock_file import read_lock
from corral.rollout.journal import Journals
from corral.store.api_keys import key_path, keys_in, read_keys
from corral.store.engine_archives import Archive, ArchiveStore
from tests.samples import CHAT, host
from tests.unit.bench_samples import result
from tests.unit.rollout_samples import rollout

pytestmark = pytest.mark.slow

UP = ["../x", "../../x", "/etc/cron.d/x", "a/b", ".", "..", "", "a\nb", "a\x1b[2J", "a\u202eb"]
# pyinfra's connectors name hosts in parts, as in @docker/debian.
NO_HOST = [name for name in UP if name != "a/b"]
here = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", [*NO_HOST, "-oProxyCommand=x", "x" * 201])
def test_a_host_of_such_a_name_is_not_in_an_inventory(name: str) -> None:
    with pytest.raises(CorralError, match="^i.py: .*\n  Next: edit i.py") as caught:
        parse_host(name, {}, origin="i.py")
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["@local", "host.example.org", "10.0.0.1", "::1", "gpu_1", "@docker/debian"]
)
def test_ordinary_names_have_their_own_folder_of_keys(name: str) -> None:
    found = parse_host(name, {"instances": [CHAT], "keys_folder": "/store"})
    assert key_path(found, "chat") == Path(f"/store/{name}/chat")


@pytest.mark.parametrize("name", NO_HOST)
def test_no_host_has_keys_outside_of_the_store(name: str) -> None:
    unchecked = Host.model_construct(name=name, data={}, spec=HostSpec(keys_folder="/store"))
    with pytest.raises(CorralError, match=r"^keys of "):
        key_path(unchecked, "chat")


@pytest.mark.parametrize("name", UP)
def test_no_instance_has_keys_outside_of_the_store(name: str) -> None:
    with pytest.raises(CorralError, match=r"^keys of "):
        key_path(host(CHAT), name)


@pytest.mark.parametrize(
    "moment",
    [
        "/../../../../tmp/owned", "../x", "2026-11-21T16:06:18", "2026-11-21T16:06:18Z\n",
        "2026-11-21T16:06:18Z/../x", "٢٠٢٦-11-21T16:06:18Z", "", None, 7,
    ],
)  # fmt: skip
def test_the_time_of_a_result_is_a_time(moment: object) -> None:
    with pytest.raises(ValueError, match="began_at"):
        result(began_at=moment)


@pytest.mark.parametrize("name", UP)
def test_results_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    store = ResultStore(tmp_path / "store")
    waited = Pending(spec_sha256="x", before=None)
    for odd in ([{"host": name}] if name in NO_HOST else []) + [{"instance": name}]:
        unchecked = Result.model_construct(**{**result().model_dump(), **odd})
        with pytest.raises(CorralError, match="^results: "):
            store.save(unchecked)
    with pytest.raises(CorralError, match="^results: "):
        store.expect("gpu-01", name, waited)
    assert list(tmp_path.iterdir()) == []


def test_a_reference_finds_nothing_outside_of_the_folder(tmp_path: Path) -> None:
    ResultStore(tmp_path / "other").save(result())
    store = ResultStore(tmp_path / "store" / "a")
    store.folder.mkdir(parents=True)
    for reference in ("../../other/node-1/chat", "*/chat", "..", ""):
        with pytest.raises(CorralError, match="no results are kept"):
            store.find(reference)


def test_a_damaged_note_of_what_was_asked_is_none(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.expect("a", "chat", Pending(spec_sha256="x", before=None))
    (tmp_path / "a" / "chat" / "pending.json").write_text("{")
    assert store.pending("a", "chat") is None


@pytest.mark.parametrize("name", UP)
def test_a_journal_is_in_its_folder(tmp_path: Path, name: str) -> None:
    journals = Journals(tmp_path / "rollouts")
    for use in (journals.load, lambda one: journals.path(one, "page.html")):
        with pytest.raises(CorralError, match="^rollout: "):
            use(name)
    with pytest.raises(ValueError, match="id"):
        rollout("a", id=name)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_is_saved_where_it_was_read(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    journals.save(rollout("a", id="one"))
    (tmp_path / "one").rename(tmp_path / "two")
    with pytest.raises(CorralError, match="is the journal of one"):
        journals.load("two")


PLAIN: dict[str, Any] = {
    "engine": "llama.cpp", "key": "0c1e57098bba-cpu-25455e42", "size_bytes": 4,
    "sha256": "a" * 64, "manifest": {"flags": ["--model"]},
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "../../etc"}, {"engine": ".."}, {"engine": "a/b"}, {"engine": "x" * 201},
        {"key": "../x"}, {"key": f"0c1e57098bba-{'x' * 201}-25455e42"}, {"key": None},
        {"size_bytes": -1}, {"size_bytes": 2**60}, {"size_bytes": "many"},
        {"sha256": "a" * 63}, {"sha256": "../x"}, {"more": 1},
        {"manifest": None}, {"manifest": []}, {"manifest": {}}, {"manifest": {"flags": "--model"}},
        {"manifest": {"flags": [], "builder": 7}}, {"manifest": {"flags": [], "built_at": "then"}},
        {"manifest": {"flags": [], "built_at": "2026-01-01T00:00:00"}},
    ],
)  # fmt: skip
def test_an_odd_description_of_an_archive_is_one_message(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert Archive.model_validate(PLAIN)
    described = tmp_path / "a.json"
    described.write_text(json.dumps({**PLAIN, **changes}))
    refused(tmp_path, described)


def refused(tmp_path: Path, described: Path) -> None:
    store = ArchiveStore(tmp_path / "store")
    with pytest.raises(CorralError, match="a.json: (?s:.*)\n  Next: "):
        store.import_from(described)
    assert not store.folder.exists()


def test_a_description_of_any_size_or_kind_is_one_message(tmp_path: Path) -> None:
    described = tmp_path / "a.json"
    described.mkdir()
    refused(tmp_path, described)
    described.rmdir()
    described.symlink_to("/dev/zero")
    refused(tmp_path, described)
    described.unlink()
    refused(tmp_path, described)
    described.write_text("[" * 100_000)
    refused(tmp_path, described)
    with described.open("wb") as file:
        file.truncate(17 * 1024**2)
    refused(tmp_path, described)


def test_a_description_of_another_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ik_llama.cpp" / f"{PLAIN['key']}.json"
    path.parent.mkdir()
    path.write_text(json.dumps(PLAIN))
    with pytest.raises(CorralError, match="describes llama.cpp 0c1e57098bba"):
        ArchiveStore(tmp_path).all()


def test_an_import_goes_nowhere_else(tmp_path: Path) -> None:
    """The bytes come from beside the description, by its own names."""
    described = tmp_path / "a.json"
    described.write_text(json.dumps(PLAIN))
    packed = tmp_path / f"{PLAIN['engine']}-{PLAIN['key']}.tar.zst"
    packed.symlink_to("/dev/zero")
    with pytest.raises(CorralError, match="is missing"):
        ArchiveStore(tmp_path / "store").import_from(described)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def one_message(read: Any, path: Path) -> Any:
    try:
        return read(path)
    except CorralError:
        return None


@here
@given(st.dictionaries(st.sampled_from([*PLAIN, "more"]), JSON), st.dictionaries(st.text(), JSON))
def test_any_description_is_an_archive_or_one_message(
    tmp_path: Path, changes: dict[str, Any], manifest: dict[str, Any]
) -> None:
    described = tmp_path / "a.json"
    told = {**PLAIN["manifest"], **manifest}
    described.write_text(json.dumps({**PLAIN, "manifest": told, **changes}))
    one_message(ArchiveStore(tmp_path / "store").import_from, described)
    described.write_text(json.dumps(changes))
    one_message(ArchiveStore(tmp_path / "store").import_from, described)


@here
@given(st.binary(max_size=200) | st.text(alphabet='[{"a:1,}]', max_size=40).map(str.encode))
def test_any_bytes_are_a_description_a_lock_a_key_file_or_one_message(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "any"
    path.write_bytes(data)
    one_message(ArchiveStore(tmp_path / "store").import_from, path)
    one_message(read_lock, path)
    found = one_message(read_keys, path)
    if found:
        assert all(line.isascii() and len(line) >= 20 for line in keys_in(found.text))


@here
@given(st.lists(st.text(max_size=30) | st.from_regex(r"[ -~]{20,40}", fullmatch=True)))
def test_any_lines_are_keys_or_one_message(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "keys"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    found = one_message(read_keys, path)
    if found:
        # Each of them can stand in a header as it is.
        assert all(key.split() == [key] and key.isprintable() for key in keys_in(found.text))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("engines", "patches", "chat-templates", "references", "profiles"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize("file", ["patches/x.patch", "chat-templates/x.jinja", "references/x"])
def test_no_link_leads_out_of_the_catalog(folder: Path, file: str) -> None:
    """Its text would be sent to every host, and stand in plans."""
    (folder / "secret").write_text("secret")
    for target in ("../secret", str(folder / "secret"), "/dev/zero", "gone"):
        (folder / file).symlink_to(target)
        with pytest.raises(CorralError, match="is not a file of this folder"):
            load_catalog(folder)
        (folder / file).unlink()
    (folder / file).mkdir()
    with pytest.raises(CorralError, match="is not a file of this folder"):
        load_catalog(folder)


def test_an_entry_that_is_no_file_is_told(folder: Path) -> None:
    (folder / "engines" / "x.toml").symlink_to("/dev/zero")
    with pytest.raises(CorralError, match="is not a file of this folder"):
        load_catalog(folder)


def test_a_link_to_a_neighbour_is_a_second_name(folder: Path) -> None:
    (folder / "patches" / "a.patch").write_text("text")
    (folder / "patches" / "b.patch").symlink_to("a.patch")
    assert load_catalog(folder).patches == {"a.patch": "text", "b.patch": "text"}


@pytest.mark.parametrize("name", ["..toml", "a\x1b[2J.toml", "...toml"])
def test_the_name_of_an_entry_can_be_a_folder_on_hosts(folder: Path, name: str) -> None:
    (folder / "engines" / name).write_text("")
    with pytest.raises(CorralError, match="the name ") as caught:
        load_catalog(folder)
    assert "\x1b" not in str(caught.value)


def test_a_file_of_any_depth_is_one_message(folder: Path) -> None:
    (folder / "profiles" / "a.toml").write_text(f"a = {'[' * 100_000}")
    with pytest.raises(CorralError, match="not readable as TOML"):
        load_catalog(folder)


@pytest.mark.parametrize("name", ["../x.patch", "/etc/shadow", "a/b"])
def test_a_patch_is_named_and_not_looked_for(folder: Path, name: str) -> None:
    (folder / "x.patch").write_text("text")
    with pytest.raises(CorralError, match='unknown patch "'):
        load_catalog(folder).patch(name, where="x")
