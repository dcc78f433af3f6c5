"""Commands that each operation sends to a host that lacks something."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from pyinfra.api.command import FunctionCommand
from pyinfra.connectors.util import CommandOutput

from corral.findings import Finding
from corral.host.checks import Check
from corral.store.api_keys import KeyFile
from operations import fit, host, instance, model
from tests.operations.fakes import asked, commands, prepared, stdin, text
from tests.samples import CHAT, LONG, plan
from tests.samples import host as sample_host

HELPER = "/usr/local/lib/corral/corral_host.pyz"
CANARY = "canary-0123456789-abcdefghij"
PLANNED = plan(CHAT, LONG)
OF = sample_host(CHAT, LONG)
ALL = PLANNED.instances
KEYS = {i.name: KeyFile(path=f"/keys/{i.name}", text=f"# x\n{CANARY}\n") for i in ALL}


def test_the_helper_is_installed_by_one_rename() -> None:
    with prepared():
        (command,) = commands(host.helper, HELPER, archive=b"PK", installed_sha256=None)
    assert text(command).splitlines()[0] == (
        f"umask 022 && mkdir -p /usr/local/lib/corral && base64 -d > {HELPER}.$$"
        f" && mv -T {HELPER}.$$ {HELPER}"
    )
    assert base64.b64decode(stdin(command)) == b"PK"


def test_a_current_helper_is_a_noop_and_another_is_not() -> None:
    current = hashlib.sha256(b"PK").hexdigest()
    with prepared():
        assert commands(host.helper, HELPER, archive=b"PK", installed_sha256=current) == []
        assert commands(host.helper, HELPER, archive=b"PK", installed_sha256="0" * 64)


def test_what_only_root_can_read_is_opened() -> None:
    with prepared():
        assert commands(host.modes, closed=(), plan=PLANNED) == []
        (command,) = commands(host.modes, closed=("/opt/corral",), plan=PLANNED)
    assert text(command).splitlines()[0] == f"python3 -I {HELPER} heal"
    assert json.loads(stdin(command)) == json.loads(PLANNED.to_helper())


def test_findings_fail_without_touching_the_host() -> None:
    findings = [Finding(what="a is wrong", next_step="fix a"), Finding(what="b", next_step="c")]
    with prepared() as fake:
        (command,) = commands(host.preflight, findings)
        assert isinstance(command, FunctionCommand)
        assert command.function(fake.state, fake, *command.args, **command.kwargs) is False
        assert asked(fake) == []
    for word in ("a is wrong", "Next: fix a", "b", "Next: c"):
        assert word in text(command)


def test_keys_travel_on_standard_input_only() -> None:
    with prepared():
        found = commands(instance.keys, ALL, helper=HELPER, files=KEYS)
    assert [text(command).splitlines()[0] for command in found] == [f"python3 -I {HELPER} key"] * 2
    for command, planned in zip(found, ALL, strict=True):
        paths = {"key_path": planned.key_path, "unit_path": planned.unit_path}
        assert json.loads(stdin(command)) == {**paths, "keys": KEYS[planned.name].text}
        assert CANARY not in text(command)
        assert CANARY not in repr(command)


def test_a_generation_travels_whole_and_touches_no_service() -> None:
    with prepared():
        found = commands(instance.generations, ALL, helper=HELPER)
    assert [text(command).splitlines()[0] for command in found] == [
        f"python3 -I {HELPER} stage"
    ] * 2
    assert json.loads(stdin(found[0]))["unit_text"] == ALL[0].unit_text


def test_missing_shards_are_fetched_as_one_job() -> None:
    with prepared():
        start, _ = commands(model.shards, PLANNED.shards, paths=PLANNED.paths)
    assert text(start).splitlines()[0] == f"python3 -I {HELPER} start fetch"
    (shard,) = json.loads(stdin(start))["spec"]["shards"]
    assert shard == PLANNED.shards[0].model_dump(mode="json")


def test_a_host_that_has_all_weights_is_marked_once() -> None:
    with prepared():
        assert commands(model.shards, (), paths=PLANNED.paths, tidy=True) == []
        start, _ = commands(model.shards, (), paths=PLANNED.paths, tidy=False)
    assert json.loads(stdin(start))["spec"]["shards"] == []


def test_the_token_of_gated_models_travels_on_standard_input_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    gated = [shard.model_copy(update={"gated": True}) for shard in PLANNED.shards]
    with prepared():
        start, follow = commands(model.shards, gated, paths=PLANNED.paths)
        plain, _ = commands(model.shards, PLANNED.shards, paths=PLANNED.paths)
    assert json.loads(stdin(start))["token"] == CANARY
    assert CANARY not in text(start) + text(follow) + repr(start)
    assert CANARY not in json.dumps(json.loads(stdin(start))["spec"])
    assert CANARY not in stdin(plain)


@pytest.mark.parametrize("is_gated", [False, True])
def test_a_proof_gets_the_token_when_it_runs(
    monkeypatch: pytest.MonkeyPatch, is_gated: bool
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    sent: list[str] = []

    def run(_: object, command: object, **how: str) -> tuple[bool, CommandOutput]:
        sent.append(how["_stdin"])
        assert CANARY not in str(command)
        return False, CommandOutput([])

    shards = [shard.model_copy(update={"gated": is_gated}) for shard in PLANNED.shards]
    planned = PLANNED.model_copy(update={"shards": tuple(shards)})
    with prepared() as fake:
        (command,) = commands(fit.proof, planned, waiting=planned.instances)
        assert isinstance(command, FunctionCommand)
        assert CANARY not in text(command)
        monkeypatch.setattr(type(fake), "run_shell_command", run)
        command.function(fake.state, fake, *command.args, **command.kwargs)
    (document,) = sent
    assert json.loads(document)["token"] == (CANARY if is_gated else None)


def test_no_job_names_a_key() -> None:
    with prepared():
        found = [
            *commands(model.shards, PLANNED.shards, paths=PLANNED.paths),
            *commands(instance.generations, ALL, helper=HELPER),
        ]
    assert not [c for c in found if CANARY in text(c) + str(c.connector_arguments)]


def test_verification_waits_for_the_execution_phase() -> None:
    with prepared() as fake:
        assert commands(instance.verify, PLANNED, of=OF) == []
        assert asked(fake) == []


def verified(rows: list[dict[str, object]]) -> list[str]:
    """The failure of a verification, for these answers of the helper."""
    with prepared({" check": json.dumps(rows)}) as fake:
        fake.state.is_executing = True
        return [text(command) for command in commands(instance.verify, PLANNED, of=OF)]


def row(name: str, *, ok: bool) -> dict[str, object]:
    return {"instance": name, "check": "health", "ok": ok, "detail": "503"}


def test_verification_fails_on_a_failed_a_missing_or_no_check() -> None:
    assert verified([row("chat", ok=True), row("long", ok=True)]) == []
    (failed,) = verified([row("chat", ok=True), row("long", ok=False)])
    assert "long: health: 503" in failed
    (missing,) = verified([row("chat", ok=True)])
    assert "long: not checked" in missing
    assert len(verified([])) == 1


def test_verification_fails_on_an_answer_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = Check(instance="long", check="outside", ok=False, detail="it answers this machine")
    monkeypatch.setattr(instance, "outside_checks", lambda *_: [reached])
    (failed,) = verified([row("chat", ok=True), row("long", ok=True)])
    assert "long: outside: it answers this machine" in failed
