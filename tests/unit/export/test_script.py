"""Start scripts: a program started by them tells what it was given."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.samples import CHAT, GPU, SOCKET
from tests.unit.exports import (
    ALL_NASTY,
    EXTRA,
    TWO_GPUS,
    Started,
    exported,
    started,
    subject,
    telling_program,
)

KEY = "a-key-of-twenty-characters-or-more"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A key file in a place with a space."""
    path = tmp_path / "the keys"
    path.write_text(f"# of nobody\n\n{KEY}\n")
    return path


def run_script(text: str, keys: Path, *words: str, **environment: str) -> Started:
    """Start a script whose program is the telling one."""
    path = keys.with_name("start")
    path.write_text(text)
    program = str(telling_program(keys.parent))
    overrides = {"CORRAL_PROGRAM": program, "CORRAL_KEYS": str(keys)}
    return started("bash", str(path), *words, **overrides, **environment)


def test_a_script_starts_the_command_line_of_the_unit_to_the_letter(keys: Path) -> None:
    about = subject(CHAT, alias=ALL_NASTY, extra_flags=EXTRA)
    wanted = list(about.instance.argv)
    wanted[wanted.index("--api-key-file") + 1] = str(keys)
    done = run_script(exported("script", about), keys)
    assert (done.code, done.err) == (0, "")
    assert done.argv[1:] == wanted[1:]
    assert tuple(done.argv[-len(EXTRA) :]) == EXTRA


def test_a_script_gives_the_server_the_environment_of_the_unit_alone(keys: Path) -> None:
    about = subject(TWO_GPUS, data={"gpus": GPU})
    done = run_script(
        exported("script", about), keys, LLAMA_ARG_PORT="1", LLAMA_API_KEY="x", HOME="/root"
    )
    assert done.environment == {
        "PATH": "/usr/bin:/bin",
        "GGML_NO_BACKTRACE": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "1,0",
    }


def test_words_given_to_a_script_come_last(keys: Path) -> None:
    done = run_script(exported("script", subject(CHAT)), keys, "--port", "two words")
    assert done.argv[-2:] == ["--port", "two words"]


def test_a_script_takes_another_model(keys: Path) -> None:
    done = run_script(exported("script", subject(CHAT)), keys, CORRAL_MODEL="/a b.gguf")
    assert done.argv[done.argv.index("--model") + 1] == "/a b.gguf"


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", None])
def test_a_script_refuses_a_key_file_without_a_key(text: str | None, keys: Path) -> None:
    if text is None:
        keys.unlink()
    else:
        keys.write_text(text)
    done = run_script(exported("script", subject(CHAT)), keys)
    assert (done.code, done.argv) == (1, [])
    assert f"{keys}: there is no key in it. Next: " in done.err


def test_a_script_looks_for_the_keys_of_the_host_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "start"
    path.write_text(exported("script", subject(CHAT)))
    done = started("bash", str(path), CORRAL_PROGRAM=str(telling_program(tmp_path)))
    assert done.code == 1
    assert "/etc/corral/keys/chat: there is no key in it" in done.err


def test_a_script_locks_memory_where_the_unit_does() -> None:
    plain = exported("script", subject(CHAT)).splitlines()
    assert "ulimit -c 0" in plain
    assert not [line for line in plain if "unlimited" in line]
    locking = exported("script", subject(CHAT, load_mode="mlock"))
    assert "ulimit -l unlimited" in locking.splitlines()


def answer_once(listening: socket.socket) -> None:
    """As a server that is up, or still loading."""
    with listening.accept()[0] as connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 503 Loading\r\nContent-Length: 0\r\n\r\n")


def of_socket(path: Path) -> str:
    """The script of an instance that listens there."""
    return exported("script", subject(SOCKET)).replace("/run/corral-private/llama.sock", str(path))


def test_a_script_makes_the_folder_of_its_socket(keys: Path) -> None:
    path = keys.parent / "made" / "x.sock"
    assert str(path) in run_script(of_socket(path), keys).argv
    assert path.parent.is_dir()


def test_a_script_removes_a_socket_that_was_left_behind(keys: Path) -> None:
    path = keys.parent / "x.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert run_script(of_socket(path), keys).code == 0
    assert not path.exists()


def test_a_script_leaves_a_socket_where_somebody_listens(keys: Path) -> None:
    path = keys.parent / "x.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(30)
        with ThreadPoolExecutor(max_workers=1) as pool:
            answered = pool.submit(answer_once, listening)
            done = run_script(of_socket(path), keys)
            answered.result()
    assert (done.code, done.argv) == (1, [])
    assert f"{path}: in use" in done.err
    assert "Next: systemctl stop corral-private.service" in done.err
    assert path.exists()
