"""Each engine's real server accepts Corral's arguments for every shipped profile."""

from __future__ import annotations

import pytest

from corral.catalog.entries import EngineKind, load_catalog
from corral.catalog.profile import Profile
from corral.engines import engine_module, problems, resolve_placement
from corral.engines.flag_table import Settings
from corral.plan.instance import Endpoint
from tests.lab.server_starts import Case, Started, start_each
from tests.lab.workspace import CHECKOUT, Workspace

HOST = "lab-2"
INSTANCES: dict[EngineKind, str] = {"llama.cpp": "tiny-f16", "ik_llama.cpp": "tiny-ik"}
CATALOG = load_catalog(CHECKOUT / "catalog")
FOLDER, PORT = "/run/corral-test-flags", 18123
# Placement arguments for two GPUs; a build for the CPU parses them as well.
GPUS = 2
WRONG = "--no-such-flag"
# Errors of a server that has parsed its arguments and finds no GPU.
WITHOUT_GPUS: dict[tuple[EngineKind, str], str] = {
    ("ik_llama.cpp", "glm-4.7-q4-graph"): "split mode 'graph' with less than 2 devices"
}


def can_serve(kind: EngineKind, profile: Profile) -> bool:
    """Whether planning would accept the profile for this engine."""
    return not problems(kind, profile, gpus=GPUS)


PAIRS = [
    (kind, name)
    for kind in INSTANCES
    for name, profile in CATALOG.profiles.items()
    if can_serve(kind, profile)
]
STARTS = [pytest.param(kind, name, id=f"{kind}-{name}") for kind, name in PAIRS]


def case(lab: Workspace, kind: EngineKind, profile: Profile) -> Case:
    """The command line of a deploy, with the tiny model in place of the profile's own."""
    socket = f"{FOLDER}/server.sock" if profile.listen == "unix" else None
    endpoint = Endpoint(socket=socket) if socket else Endpoint(address="127.0.0.1", port=PORT)
    template = profile.chat_template_file
    argv = engine_module(kind).argv(
        program(lab, kind),
        Settings(
            profile=profile,
            model=f"{FOLDER}/model.gguf",
            alias="tiny",
            endpoint=endpoint,
            key_file=f"{FOLDER}/keys",
            placement=resolve_placement(profile, gpus=GPUS),
            chat_template_file=f"{FOLDER}/{template}" if template else None,
        ),
    )
    return Case(argv, port=None if socket else PORT, socket=socket)


def program(lab: Workspace, kind: EngineKind) -> str:
    """The program of the engine's running instance."""
    return lab.on(HOST, f"readlink /proc/{lab.pid(HOST, INSTANCES[kind])}/exe")


def prepare(lab: Workspace) -> None:
    """Put keys, a model in one file, and the catalog's chat templates on the host."""
    lab.on(HOST, f"mkdir -m 0700 {FOLDER} && head -c 24 /dev/urandom | base64 > {FOLDER}/keys")
    for file, text in CATALOG.chat_templates.items():
        lab.on(HOST, f"cat > {FOLDER}/{file} <<'END'\n{text}\nEND")
    release = program(lab, "llama.cpp").removesuffix("/llama-server")
    first = lab.on(HOST, "find /var/lib/corral/models -name '*F16-00001-of-*.gguf'")
    lab.on(HOST, f"{release}/llama-gguf-split --merge {first} {FOLDER}/model.gguf")


@pytest.fixture(scope="module")
def started(deployed_once: Workspace) -> dict[tuple[EngineKind, str], Started]:
    lab = deployed_once
    prepare(lab)
    found: dict[tuple[EngineKind, str], Started] = {}
    for kind in INSTANCES:
        profiles = {name: CATALOG.profiles[name] for of, name in PAIRS if of == kind}
        cases = {name: case(lab, kind, profile) for name, profile in profiles.items()}
        correct = cases["tiny-chat"]
        cases[WRONG] = Case((*correct.argv, WRONG), port=correct.port)
        results = start_each(lab, HOST, cases)
        found |= {(kind, name): result for name, result in results.items()}
    lab.on(HOST, f"rm -r {FOLDER}")
    return found


@pytest.mark.parametrize(("kind", "name"), STARTS)
def test_a_profiles_words_start_the_real_server(
    started: dict[tuple[EngineKind, str], Started], kind: EngineKind, name: str
) -> None:
    server, reason = started[kind, name], WITHOUT_GPUS.get((kind, name))
    assert server.ready if reason is None else reason in server.said, server.said


@pytest.mark.parametrize("kind", INSTANCES)
def test_a_wrong_word_is_refused(
    started: dict[tuple[EngineKind, str], Started], kind: EngineKind
) -> None:
    refused = started[kind, WRONG]
    assert not refused.ready
    assert refused.code not in (0, None)
    assert f"argument: {WRONG}" in refused.said


@pytest.mark.parametrize("kind", INSTANCES)
def test_every_profile_of_the_engine_is_among_them(kind: EngineKind) -> None:
    of_kind = {
        name
        for name, profile in CATALOG.profiles.items()
        if CATALOG.engines[profile.engine].kind == kind
    }
    assert of_kind
    assert of_kind <= {name for of, name in PAIRS if of == kind}
