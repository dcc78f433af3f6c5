"""Compose files of every kind of instance, as docker-compose reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from corral.export.subject import Subject
from tests.lab.compose_parser import docker_compose, parsed
from tests.samples import CHAT, GPU, SOCKET
from tests.unit.export.test_vllm import subject as vllm
from tests.unit.exports import EXTRA, exported, subject
from tests.unit.vllm_samples import ON_SOCKET


def test_docker_compose_reads_nasty_words_as_they_are(tmp_path: Path) -> None:
    found = parsed(exported("compose", subject(CHAT, extra_flags=EXTRA)), tmp_path)
    words = found["services"]["chat"]["command"]
    # It doubles each dollar again when it prints.
    assert [word.replace("$$", "$") for word in words[-len(EXTRA) :]] == list(EXTRA)


def test_docker_compose_starts_a_socket_server_over_what_one_left(tmp_path: Path) -> None:
    found = parsed(exported("compose", subject(SOCKET)), tmp_path)["services"]["private"]
    left = tmp_path / "x.sock"
    left.touch()
    shell = [word.replace("$$", "$") for word in found["entrypoint"][:-2]]
    done = subprocess.run([*shell, left, "/bin/echo", "a  b"], capture_output=True, check=True)
    assert done.stdout == b"a  b\n"
    assert not left.exists()


@pytest.mark.parametrize(
    "about",
    [
        subject(SOCKET),
        subject({**CHAT, "address": "::1"}, load_mode="mlock"),
        subject({**CHAT, "gpus": [1, 0]}, data={"gpus": GPU}),
        vllm(),
        vllm(ON_SOCKET, listen="unix"),
    ],
    ids=["socket", "ipv6 and mlock", "gpus", "vllm", "vllm on a socket"],
)
def test_docker_compose_accepts_every_kind(about: Subject, tmp_path: Path) -> None:
    assert list(parsed(exported("compose", about), tmp_path)["services"]) == [about.instance.name]


def test_docker_compose_asks_for_the_image(tmp_path: Path) -> None:
    done = docker_compose(exported("compose", subject(CHAT)), tmp_path)
    assert done.returncode != 0
    assert "an image of the host's distribution" in done.stderr
