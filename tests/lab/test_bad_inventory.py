"""A mistake in inventory, catalog, lock or key store: one message, nothing changed on any host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.untouched import LAB, assert_refused, look
from tests.lab.workspace import Workspace

INVENTORY = "inventories/lab.py"
LONG = '"name": "tiny-long", "profile": "tiny-long"'
PROFILE = "catalog/profiles/tiny-long.toml"
MODEL = "catalog/models/tiny-glm-moe.toml"
REVISION = 'revision = "v2"\ntrain_context_tokens'

# name -> file, old text, new text, host to plan, text of the message
MISTAKES = {
    "unknown profile": (
        INVENTORY, LONG, LONG[:-10] + 'tiny-lomg"', "lab-1",
        ("lab-1/tiny-long", 'unknown profile "tiny-lomg"', 'did you mean "tiny-long"'),
    ),
    "unknown model": (
        INVENTORY, LONG, f'{LONG}, "model": "tiny-glm"', "lab-1",
        ("lab-1/tiny-long", 'unknown model "tiny-glm"', 'did you mean "tiny-glm-moe"'),
    ),
    "unknown quant": (
        INVENTORY, '"quant": "F16"', '"quant": "Q4_K"', "lab-2",
        ("lab-2/tiny-f16", 'has no quant "Q4_K"', "F16, Q8_0"),
    ),
    "unknown engine": (
        INVENTORY, LONG, f'{LONG}, "engine": "llama-cpp"', "lab-1",
        ("lab-1/tiny-long", 'unknown engine "llama-cpp"', 'did you mean "llama.cpp"'),
    ),
    "typo in a catalog key": (
        PROFILE, "slots =", "slotz =", "lab-1",
        (PROFILE, 'unknown key "slotz"', 'did you mean "slots"'),
    ),
    "two instances on one port": (
        INVENTORY, '"tiny-long", "port": 8002', '"tiny-long", "port": 8001', "lab-1",
        ("lab-1", '"tiny-chat" and "tiny-long" share port 8001'),
    ),
    "two instances with one name": (
        INVENTORY, '"name": "tiny-long"', '"name": "tiny-chat"', "lab-1",
        ("lab-1", 'two instances are called "tiny-chat"'),
    ),
    "stale lock": (
        MODEL, "train_context_tokens", REVISION, "lab-1",
        ("corral.lock is stale", "tiny-glm-moe", "@v2", "corral lock"),
    ),
    "lock without an entry": (
        "corral.lock", '"F16"', '"F32"', "lab-2",
        ("corral.lock has no entry for model tiny-glm-moe, quant F16", "corral lock"),
    ),
}  # fmt: skip
KEY_FILES = {
    "no key": (b"# nothing but a comment\n", "holds no key"),
    "empty": (b"", "holds no key"),
    "CRLF": (b"a-key-of-more-than-twenty-characters\r\n", "CRLF"),
}


@contextmanager
def nothing_changes(lab: Workspace) -> Iterator[None]:
    before = look(lab, *LAB)
    yield
    assert look(lab, *LAB) == before


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_deploy_with_a_mistake_changes_no_host(deployed_once: Workspace, mistake: str) -> None:
    name, old, new, _, words = MISTAKES[mistake]
    with nothing_changes(deployed_once), deployed_once.edited(name, old, new):
        refused = deployed_once.deploy()
    assert_refused(refused, *words)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_plan_with_a_mistake_says_the_same(deployed_once: Workspace, mistake: str) -> None:
    name, old, new, host, words = MISTAKES[mistake]
    with deployed_once.edited(name, old, new):
        refused = deployed_once.corral("plan", host, "-i", INVENTORY)
    assert_refused(refused, *words)
    assert refused.stdout == ""


@pytest.mark.parametrize(
    "mistake", [name for name, (file, *_) in MISTAKES.items() if file in (INVENTORY, PROFILE)]
)
def test_a_mistake_of_a_host_is_none_of_another(deployed_once: Workspace, mistake: str) -> None:
    name, old, new, host, words = MISTAKES[mistake]
    other = "lab-2" if host == "lab-1" else "lab-1"
    with nothing_changes(deployed_once), deployed_once.edited(name, old, new):
        done = deployed_once.deploy("--limit", other)
        planned = deployed_once.corral("plan", other, "-i", INVENTORY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert f"instance {'tiny-f16' if other == 'lab-2' else 'tiny-chat'}:" in planned.stdout
    assert [word for word in (f"without {host}", *words) if word not in planned.stderr] == []


@pytest.mark.parametrize("fault", KEY_FILES)
def test_a_bad_key_file_is_refused_before_anything_is_uploaded(
    deployed_once: Workspace, fault: str
) -> None:
    text, words = KEY_FILES[fault]
    path = deployed_once.layout.keys / "lab-1" / "tiny-chat"
    good = path.read_bytes()
    path.write_bytes(text)
    try:
        with nothing_changes(deployed_once):
            refused = deployed_once.deploy()
    finally:
        path.write_bytes(good)
    assert_refused(refused, str(path), words)


def test_the_look_at_a_host_tells_a_change(fleet: Workspace) -> None:
    before = look(fleet, "lab-1")
    fleet.on("lab-1", "touch /etc/corral/keys/tiny-chat")
    assert look(fleet, "lab-1") != before
