"""An engine of another kind: its release is a Python environment, its flags and routes its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from corral import engines
from corral.bench.run import Benchmark, run
from corral.bench.store import ResultStore
from corral.catalog.entries import Engine
from corral.catalog.profile import Profile
from corral.errors import CorralError
from corral.export import FORMS
from corral.export.subject import Subject
from corral.lock.lock_file import LockedEngine
from corral.lock.resolve import resolve
from corral.plan.host import HostPlan
from corral.plan.release import PythonEnvironment
from corral.planning.planner import Planner
from lab.wheel_index import Index, serving
from tests.lab.waiting import wait_for
from tests.ports import free_port
from tests.requirements import MadeRequirements
from tests.samples import CHAT, REPO, REVISION, ROOT, catalog, host, lock
from tests.samples import planner as sample_planner
from tests.third_engine import echo, wheel
from tests.unit import helper_hosts as hosts
from tests.unit import uv_on_this_machine
from tests.unit.helper_modules import helper_module
from tests.wheels import requirement

pytestmark = pytest.mark.slow

build, tools = helper_module("release.build"), helper_module("system.commands")
environment = helper_module("release.python_environment")
URL = "https://wheels.example.com/echo"
ASKED: dict[str, Any] = {"name": "echo", "profile": "echo", "port": 8001}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line on each side."""
    ours, theirs = vars(engines)["_ENGINES"], helper_module("engines").ENGINES
    monkeypatch.setitem(ours, "echo", echo.ENGINE)
    monkeypatch.setitem(theirs, "echo", import_module("tests.third_engine.helper").Echo())


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return wheel.make(tmp_path)


def pinned(spec: dict[str, Any], *wheels: Path) -> dict[str, Any]:
    """The same release of these wheels, as they are now."""
    text = "".join(map(requirement, wheels))
    return {**spec, "artifact": {**spec["artifact"], "requirements": text}}


def entry(url: str = URL) -> Engine:
    return Engine.model_validate(tomllib.loads(wheel.catalog_entry(url)))


def locked(made: Path) -> LockedEngine:
    digest = hashlib.sha256(requirement(made).encode()).hexdigest()
    return LockedEngine(requested=entry().pinned, commit=digest[:40], requirements_sha256=digest)


def planner(made: Path, *, url: str = URL, **changes: Any) -> Planner:
    known = catalog()
    data = {**tomllib.loads(wheel.PROFILE), "model": "small", **changes}
    profiles = {**known.profiles, "echo": Profile.model_validate(data)}
    wider = known.model_copy(
        update={"engines": {**known.engines, "echo": entry(url)}, "profiles": profiles}
    )
    pins = lock().model_copy(update={"engines": {**lock().engines, "echo": locked(made)}})
    files = MadeRequirements(ROOT, {"echo": requirement(made)})
    return sample_planner().model_copy(
        update={"catalog": wider, "lock": pins, "requirements": files}
    )


def plan(made: Path, **changes: Any) -> HostPlan:
    return planner(made, **changes).plan_host(host(ASKED))


def test_its_command_line_is_of_its_own_flags(made: Path) -> None:
    (instance,), (release,) = plan(made).instances, plan(made).releases
    assert instance.kind == release.kind == "echo"
    folder = f"/var/lib/corral/models/{REPO}/{REVISION}"
    assert instance.shards == (f"{folder}/Q8_0/Small-Q8_0.gguf",)
    assert instance.argv == (
        *(f"{release.folder}/bin/python", "-I", "-m", "echo_engine"),
        *("--weights", f"{folder}/Q8_0", "--name", "small"),
        *("--listen", "127.0.0.1", "--port", "8001"),
        *("--keys", "/run/credentials/corral-echo.service/api-keys"),
        *("--context", "1024", "--slots", "2"),
    )
    assert instance.environment == {"PYTHONDONTWRITEBYTECODE": "1"}
    assert instance.gate.speed is None
    assert instance.fit_argv is None
    assert instance.need.unknown == "echo does not read GGUF"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_file_of_an_engine_that_reads_its_header_too_is_planned_with_it(
    made: Path, order: tuple[int, int]
) -> None:
    both = (ASKED, {**CHAT, "port": 8002})
    (shard,) = planner(made).plan_host(host(*(both[n] for n in order))).shards
    assert shard.header


def test_its_unit_has_what_it_needs_and_the_others_have_it_not(made: Path) -> None:
    lines = plan(made).instances[0].unit_text.splitlines()
    for line in (
        "Restart=always",
        "TimeoutStopSec=20",
        "LimitNOFILE=4096",
        "SystemCallFilter=sched_setscheduler",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    ):
        assert line in lines
    taken, given = "SystemCallFilter=~@privileged @resources", "SystemCallFilter=sched_setscheduler"
    assert lines.index(given) == lines.index(taken) + 1, "a later line is what counts"
    common = sample_planner().plan_host(host(CHAT)).instances[0].unit_text.splitlines()
    assert {"Restart=on-failure", "TimeoutStopSec=60"} < set(common)
    assert not [line for line in common if "NOFILE" in line or "NETLINK" in line]


def test_its_release_is_wheels_and_nothing_that_is_built(made: Path) -> None:
    (release,) = plan(made).releases
    artifact = release.artifact
    assert isinstance(artifact, PythonEnvironment)
    assert artifact.requirements == requirement(made)
    assert (artifact.index, artifact.find_links, artifact.source_url) == (URL, None, URL)
    assert (artifact.cuda_toolkit, artifact.programs) == (None, None)
    assert set(artifact.model_dump()) == {
        *("kind", "requirements", "requirements_sha256", "installer", "index", "find_links"),
        *("python", "platform"),
    }
    assert release.key.startswith(locked(made).commit[:12])


def test_other_wheels_are_another_release_and_another_place_is_not(
    made: Path,
) -> None:
    key = plan(made).releases[0].key
    elsewhere = planner(made, url="https://mirror.example.com").releases(host(ASKED))
    assert [release.key for release in elsewhere] == [key]
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("more.py", "")
    assert plan(made).releases[0].key != key


def test_a_key_that_it_has_no_flag_for_names_the_engines_that_have(made: Path) -> None:
    with pytest.raises(
        CorralError, match=r"threads is supported by llama\.cpp and ik_llama\.cpp only"
    ):
        plan(made, threads=4)


def test_it_cannot_be_measured_and_says_so_before_the_host_is_asked(
    made: Path, tmp_path: Path
) -> None:
    chosen = planner(made)
    found = chosen.plan_host(host(ASKED))
    benchmark = Benchmark(
        host=host(ASKED),
        plan=found,
        instance=found.instances[0],
        where="beside",
        repetitions=1,
    )
    with pytest.raises(CorralError, match="cannot be measured: echo has no benchmark program"):
        run(benchmark, ResultStore(tmp_path), print)


def test_perplexity_is_refused(made: Path) -> None:
    chosen = planner(made, perplexity={"text": "words.txt", "limit": 9})
    texts = chosen.catalog.model_copy(update={"references": {"words.txt": "some words"}})
    with pytest.raises(CorralError, match="perplexity., echo cannot measure it"):
        chosen.model_copy(update={"catalog": texts}).plan_host(host(ASKED))


@pytest.mark.parametrize("form", sorted(FORMS))
def test_it_is_exported_with_its_own_flags(made: Path, form: str) -> None:
    found = plan(made)
    subject = Subject(
        host="lab-1", instance=found.instances[0], release=found.releases[0], kind="echo"
    )
    text = FORMS[form](subject, ROOT / "templates")
    assert ("ECHO_CONTEXT=1024" if form == "env" else "--context") in text
    assert "LLAMA" not in text.replace("LLAMA_ARG_* would", "")
    # Twenty seconds, as its unit has it.
    assert form != "compose" or "    stop_grace_period: 20s\n" in text


def test_its_lock_entry_needs_nobody_to_be_asked(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins, known = lock(), planner(made).catalog
    resolving = vars(import_module("corral.lock.resolve"))
    monkeypatch.setitem(resolving, "_resolve_model", lambda *_: pins.models["small"])
    found = resolve(pins, known, [host(ASKED)], environments={"echo": locked(made)})
    assert found.engines["echo"] == locked(made)
    assert found.engines["llama.cpp"] == pins.engines["llama.cpp"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repository": "https://git.example.com/x"}, "a Python environment is not built"),
        ({"python": None}, 'key "repository" is missing; key "commit" is missing'),
    ],
)
def test_an_engine_is_built_or_an_environment_and_not_both(
    changes: dict[str, Any], said: str
) -> None:
    data = tomllib.loads(wheel.catalog_entry(URL))
    with pytest.raises(ValidationError, match=said):
        Engine.model_validate({**data, **changes})


@pytest.fixture
def running(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """The planned instance, answered by the server itself, with a key of its own."""
    monkeypatch.setattr(helper_module("server.listener"), "refuse_stranger", lambda *_: None)
    port = free_port()
    key = tmp_path / "key"
    key.write_text("secret\n")
    (planned,) = planner(made).plan_host(host({**ASKED, "port": port})).instances
    instance = {**planned.model_dump(mode="json"), "key_path": str(key)}
    monkeypatch.setattr(helper_module("activation.drain"), "loaded_key", lambda _: "secret")
    words = [*planned.argv[planned.argv.index("--weights") :]]
    words[words.index("--weights") + 1] = str(tmp_path)
    words[words.index("--keys") + 1] = str(key)
    command = [sys.executable, str(wheel.SERVER), *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        wait_for(lambda: helper_module("server.http").health(instance) == "200", "it is ready")
        try:
            yield instance
        finally:
            server.terminate()


def test_its_answers_pass_the_checks_and_the_gate(running: dict[str, Any]) -> None:
    verify, probes = helper_module("checks.verify"), helper_module("checks.probes").PROBES
    rows = {row["check"]: row for row in verify.check_instance(running)}
    for check in ("health", "keys", "model", "slots", "completion", "stream", "metrics"):
        assert rows[check]["ok"], rows[check]
    assert "not reported by this engine" in rows["slots"]["detail"]
    for part in (one.run for one in probes if one.name in ("completion", "stream", "keys")):
        found = part(running)
        assert found["ok"], found
    golden = helper_module("checks.golden").golden(running)
    assert golden["ok"], golden


def test_its_requests_in_flight_are_counted_by_itself(
    running: dict[str, Any], tmp_path: Path
) -> None:
    drain, http = helper_module("activation.drain"), helper_module("server.http")
    assert drain.processing(running) == 0
    end = tmp_path / "end"
    body = {**http.chat(running), "messages": [{"role": "user", "content": f"until {end}"}]}
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(http.call, running, "POST", "/v1/chat/completions", body, "secret")
        try:
            wait_for(lambda: drain.processing(running) == 1, "the request is in flight")
        finally:
            end.touch()
        assert answer.result()[0] == 200
    # The server counts it out a moment after its answer.
    wait_for(lambda: drain.processing(running) == 0, "nothing is in flight")
    assert drain.processing({**running, "kind": "llama.cpp"}) is None


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper finds uv where the user of builds may run it."""
    uv_on_this_machine.use(monkeypatch, tmp_path)


@pytest.fixture
def served(made: Path) -> Iterator[Index]:
    """A simple index of the wheels beside the engine's."""
    with serving(made.parent) as server:
        yield server


@pytest.fixture
def spec(made: Path, served: Index, tmp_path: Path, public: None, uv: None) -> dict[str, Any]:  # noqa: ARG001
    """A release for the helper, whose wheel is on a simple index."""
    model = tmp_path / "tiny.gguf"
    model.write_bytes(b"GGUF")
    (release,) = plan(made).releases
    found = release.model_dump(mode="json")
    return {
        **found,
        "artifact": {**found["artifact"], "index": served.url},
        "folder": str(tmp_path / "engines" / "echo" / release.key),
        "state": str(tmp_path / "state"),
        "compiler_cache": str(tmp_path / "ccache"),
        "smoke_model": {"path": str(model), "sha256": hashlib.sha256(b"GGUF").hexdigest()},
    }


@as_root
def test_the_helper_makes_its_environment_and_tries_it(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.build_host(monkeypatch)
    answer = build.build(spec)
    manifest, folder = answer["manifest"], Path(spec["folder"])
    assert manifest["smoke"].endswith("tokens on CPU")
    assert manifest["flags"] == sorted(
        ["-I", "-m", "--help", "--version", "--weights", "--name", "--keys", "--listen"]
        + ["--port", "--context", "--slots"]
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        *("bin", "installed.json", "lib", "manifest.json", "pyvenv.cfg"),
    ]
    assert not list(folder.rglob("*.whl"))
    assert helper_module("release.whole").release_is_whole(spec)
    assert manifest["found"]["distributions"] == {"echo_engine": wheel.VERSION}
    assert {path.lstat().st_uid for path in folder.rglob("*")} == {0}
    # What was fetched went with it.
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@as_root
def test_its_environment_runs_in_the_root_of_an_image_alone(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vLLM's would: of the distribution the image has the interpreter and the C library."""
    hosts.build_host(monkeypatch)
    build.build(spec)
    image = helper_module("release.image")
    said: list[str] = []

    def pack(program: str, root: str, *_: str) -> None:
        assert program == "mksquashfs"
        server = f"{release['folder']}/bin/python"
        command = ["/usr/sbin/chroot", root, server, "-I", "-m", "echo_engine", "--version"]
        said.append(subprocess.check_output(command, text=True, env={}))

    python = f"python{spec['artifact']['python']}"
    release = {
        "folder": "/opt/corral/engines/echo/an-image",
        "artifact": {
            "of": spec,
            "contents": ["base-files", "libc-bin", "libc6", python],
            "image": "image.squashfs",
            "compression": "zstd",
        },
    }
    monkeypatch.setattr(image, "output", pack)
    packages = image.squash(release, tmp_path / "image.squashfs")
    assert said[0].split()[1] == wheel.VERSION
    assert {"libc6", python, f"lib{python}-stdlib"} <= packages.keys()
