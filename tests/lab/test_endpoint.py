"""An endpoint as its users see it: the official OpenAI client, from another machine."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from tests.lab.observed import pids
from tests.lab.workspace import Workspace

ALIAS = "tiny-glm-moe"
HELLO: ChatCompletionUserMessageParam = {"role": "user", "content": "Say hello."}


def key_file(lab: Workspace) -> Path:
    """The keys of lab-1/tiny-chat in the controller's store."""
    return lab.layout.keys / "lab-1" / "tiny-chat"


def keys(lab: Workspace) -> list[str]:
    """The keys in the file, without comments."""
    lines = key_file(lab).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def client(lab: Workspace, key: str) -> OpenAI:
    """A user of lab-1/tiny-chat, which is open on the lab's network."""
    address = f"http://{lab.layout.address(1)}:8001/v1"
    return OpenAI(base_url=address, api_key=key, max_retries=0, timeout=60)


def test_a_chat_completion_is_answered(deployed_once: Workspace) -> None:
    answer = client(deployed_once, keys(deployed_once)[0]).chat.completions.create(
        model=ALIAS, messages=[HELLO], max_tokens=16
    )
    assert answer.model == ALIAS
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.completion_tokens > 0


def test_a_streamed_completion_comes_in_pieces_to_its_end(deployed_once: Workspace) -> None:
    stream = client(deployed_once, keys(deployed_once)[0]).chat.completions.create(
        model=ALIAS, messages=[HELLO], max_tokens=16, stream=True
    )
    choices = [chunk.choices[0] for chunk in stream if chunk.choices]
    assert len([choice for choice in choices if choice.delta.content]) > 1
    assert choices[-1].finish_reason in ("stop", "length")


def test_the_model_list_names_the_alias(deployed_once: Workspace) -> None:
    listed = client(deployed_once, keys(deployed_once)[0]).models.list()
    assert [model.id for model in listed] == [ALIAS]


def test_a_wrong_key_is_refused(deployed_once: Workspace) -> None:
    stranger = client(deployed_once, secrets.token_urlsafe(32))
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model=ALIAS, messages=[HELLO], max_tokens=1)


@contextmanager
def one_more_key(lab: Workspace) -> Iterator[str]:
    """Add a second key with a comment to the store until the block ends."""
    path, key = key_file(lab), secrets.token_urlsafe(32)
    before = path.read_text()
    path.write_text(f"{before}\n# for the batch jobs, until spring\n{key}\n")
    try:
        yield key
    finally:
        path.write_text(before)


def test_a_second_key_works_beside_the_first_and_restarts_its_instance_alone(
    fleet: Workspace,
) -> None:
    first, before = keys(fleet)[0], pids(fleet)
    with one_more_key(fleet) as second:
        with pytest.raises(openai.AuthenticationError):
            client(fleet, second).models.list()
        deployed = fleet.deploy()
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        for key in (first, second):
            assert client(fleet, key).models.list().data
        with pytest.raises(openai.AuthenticationError):
            client(fleet, "# for the batch jobs, until spring").models.list()
    after = pids(fleet)
    assert {pair for pair in before if before[pair] != after[pair]} == {("lab-1", "tiny-chat")}
    taken_away = fleet.deploy()
    assert taken_away.returncode == 0, taken_away.stdout + taken_away.stderr
    with pytest.raises(openai.AuthenticationError):
        client(fleet, second).models.list()
    assert client(fleet, first).models.list().data
