"""An engine that Corral does not ship serves on a host like the others, from lock to revert."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from openai import OpenAI

from lab import wheel_index
from lab.wheels import uv_wheel
from tests.lab.extra_host import extra_host
from tests.lab.untouched import assert_refused, said
from tests.lab.waiting import wait_for
from tests.lab.workspace import CHECKOUT, Done, Workspace
from tests.third_engine import wheel

NUMBER, HOST, INSTANCE = 4, "lab-4", "lab-4/echo"
INVENTORY = "inventories/third-engine.py"
LAB = ("-i", INVENTORY)
PROFILE = "catalog/profiles/echo.toml"
CONTEXT = "context_tokens_per_slot = 1024"
SOURCES = CHECKOUT / "tests" / "third_engine"
# One registration on each side.
CONTROLLER = ("corral/engines/__init__.py", "register(ik_llama_cpp.ENGINE)\n")
CONTROLLER_LINES = "from corral.engines import echo\n\nregister(echo.ENGINE)\n"
HELPER = ("files/corral_host/engines/__init__.py", "register(IkLlamaCpp())\n")
HELPER_LINES = "from corral_host.engines.echo import Echo\n\nregister(Echo())\n"
HOSTS = """from lab.hosts import connection_data
from lab.layout import this_lab

_lab = this_lab()
_echo = {"name": "echo", "profile": "echo", "port": 8001, "address": str(_lab.address(4))}
_echo["activation"] = "in-place"
_shared = {"hub_url": _lab.hub_url, "keys_folder": str(_lab.keys)}
_shared["archives_folder"] = str(_lab.archives)
servers = [("lab-4", {**connection_data(_lab, 4), **_shared, "instances": [_echo]})]
"""


@contextmanager
def added(lab: Workspace, name: str, text: str) -> Iterator[None]:
    """Add a file to the workspace until the block ends."""
    path = lab.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    try:
        yield
    finally:
        path.unlink()


@contextmanager
def wheels_served(lab: Workspace, folder: Path) -> Iterator[wheel_index.Index]:
    """A simple index on the lab's network; ``folder``: an empty one, for the wheels."""
    wheel.make(folder)
    shutil.copy2(uv_wheel(), folder)
    address = str(lab.layout.controller_address)
    with wheel_index.serving(folder, address) as server:
        yield server


@contextmanager
def engine_added(lab: Workspace, index: wheel_index.Index) -> Iterator[None]:
    """The engine in a workspace: its folder, module and catalog files. The lock is put back."""
    folder = lab.path / "corral" / "engines" / "echo"
    before = (lab.path / "corral.lock").read_text()
    locked_files = lab.path / "corral.lock.d"
    shutil.copytree(SOURCES / "echo", folder, dirs_exist_ok=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        stack.callback(shutil.rmtree, locked_files, ignore_errors=True)
        # Another file's hosts would get this release from the controller, instead of installing it.
        stack.callback(shutil.rmtree, lab.layout.archives / "echo", ignore_errors=True)
        stack.callback((lab.path / "corral.lock").write_text, before)
        for name, text in {
            "files/corral_host/engines/echo.py": (SOURCES / "helper.py").read_text(),
            "catalog/engines/echo.toml": wheel.catalog_entry(index.url),
            PROFILE: wheel.PROFILE,
        }.items():
            stack.enter_context(added(lab, name, text))
        for (name, line), lines in ((CONTROLLER, CONTROLLER_LINES), (HELPER, HELPER_LINES)):
            stack.enter_context(lab.edited(name, line, line + lines))
        yield


@pytest.fixture(scope="module")
def index(
    bare_lab: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[wheel_index.Index]:
    """One more host, and the engine's wheel."""
    wheels = tmp_path_factory.mktemp("wheels")
    with extra_host(bare_lab, NUMBER), wheels_served(bare_lab, wheels) as server:
        yield server


@pytest.fixture(scope="module")
def lab(bare_lab: Workspace, index: wheel_index.Index) -> Iterator[Workspace]:
    """A checkout with the engine."""
    with engine_added(bare_lab, index), added(bare_lab, INVENTORY, HOSTS):
        locked = bare_lab.corral("lock", INVENTORY)
        assert locked.returncode == 0, said(locked)
        yield bare_lab


def deploy(lab: Workspace) -> Done:
    return lab.deploy(inventory=INVENTORY)


@pytest.fixture(scope="module")
def serving(lab: Workspace) -> Workspace:
    """It serves, after one deploy of a bare host."""
    done = deploy(lab)
    assert done.returncode == 0, said(done)
    return lab


def arguments(lab: Workspace) -> str:
    return lab.on(HOST, f"tr '\\0' ' ' < /proc/{lab.pid(HOST, 'echo')}/cmdline")


def client(lab: Workspace) -> OpenAI:
    lines = (lab.layout.keys / HOST / "echo").read_text().splitlines()
    key = next(line for line in lines if line and not line.startswith("#"))
    address = f"http://{lab.layout.address(NUMBER)}:8001/v1"
    return OpenAI(base_url=address, api_key=key, max_retries=0, timeout=120)


def ask(lab: Workspace, text: str) -> str | None:
    answer = client(lab).chat.completions.create(
        model="tiny-glm-moe", messages=[{"role": "user", "content": text}], max_tokens=16
    )
    return answer.choices[0].message.content


def test_it_is_planned(lab: Workspace) -> None:
    planned = said(lab.corral("plan", HOST, *LAB))
    assert "1 distributions in an environment of Python 3.11" in planned
    assert "--weights /var/lib/corral/models/corral-lab/" in planned


def test_a_deploy_of_a_bare_host_makes_it_serve(serving: Workspace) -> None:
    pid = serving.pid(HOST, "echo")
    program = serving.on(HOST, f"readlink /proc/{pid}/exe")
    assert program.startswith("/opt/corral/engines/echo/")
    assert "-I -m echo_engine --weights" in arguments(serving)
    assert ask(serving, "Hello lab.") == "You said: Hello lab."
    assert serving.on(HOST, "ls /opt/corral/engines") == "echo"


def test_every_check_of_it_passes(serving: Workspace) -> None:
    verified = serving.corral("verify", INSTANCE, *LAB)
    assert verified.returncode == 0, said(verified)
    for check in ("keys", "model", "completion", "stream", "metrics", "listening", "process"):
        assert check in verified.stdout


def test_a_deploy_without_a_change_restarts_nothing(serving: Workspace) -> None:
    pid = serving.pid(HOST, "echo")
    again = deploy(serving)
    assert again.returncode == 0, said(again)
    assert serving.pid(HOST, "echo") == pid


def test_it_cannot_be_measured_and_says_so(serving: Workspace) -> None:
    measured = serving.corral("bench", INSTANCE, *LAB)
    assert_refused(measured, "cannot be measured: echo has no benchmark program")


def test_it_is_exported(serving: Workspace) -> None:
    script = serving.corral("export", INSTANCE, "--as", "script", *LAB)
    assert script.returncode == 0, said(script)
    assert '--weights "$model"' in script.stdout
    assert '--keys "$keys"' in script.stdout


def test_a_flag_that_the_program_does_not_have_touches_nothing(serving: Workspace) -> None:
    pid = serving.pid(HOST, "echo")
    wrong = f'{CONTEXT}\nextra_flags = ["--nonsense"]'
    with serving.edited(PROFILE, CONTEXT, wrong):
        assert_refused(deploy(serving), "does not know --nonsense")
    assert serving.pid(HOST, "echo") == pid


def test_what_fails_its_gate_is_reverted(serving: Workspace) -> None:
    with (
        serving.edited(PROFILE, CONTEXT, "context_tokens_per_slot = 256"),
        serving.edited(PROFILE, "You said: Hello there.", "I said: Hello there."),
    ):
        failed = deploy(serving)
    assert failed.returncode != 0
    assert "golden 0 of 1, limit 1 of 1 replies" in said(failed)
    assert "--context 1024" in arguments(serving)
    assert ask(serving, "Still there?") == "You said: Still there?"


def in_flight(lab: Workspace) -> bool:
    """Whether the server reports a running request."""
    asked = f"curl --silent --header @- http://{lab.layout.address(NUMBER)}:8001/metrics"
    header = "sed -n '/^[^#]/{s/^/Authorization: Bearer /p;q}' /etc/corral/keys/echo"
    return lab.on(HOST, f"{header} | {asked}") == "echo_in_flight 1"


def test_a_change_waits_for_the_request_in_flight_and_is_reverted(serving: Workspace) -> None:
    with (
        ThreadPoolExecutor() as pool,
        serving.edited(PROFILE, CONTEXT, "context_tokens_per_slot = 512"),
    ):
        asked = pool.submit(ask, serving, "wait 40")
        wait_for(lambda: in_flight(serving), "the request is in flight")
        changed = deploy(serving)
        assert changed.returncode == 0, said(changed)
        assert asked.result() == "You said: wait 40"
        assert "--context 512" in arguments(serving)
    back = serving.corral("revert", INSTANCE, *LAB)
    assert back.returncode == 0, said(back)
    assert "--context 1024" in arguments(serving)
    assert ask(serving, "And now?") == "You said: And now?"
