"""deploy.py as a whole on @fake hosts: which hosts stop or go on, in what order, and messages."""

from __future__ import annotations

import json
import shlex

import pytest
from pyinfra.api.exceptions import PyinfraError

from corral.host.state import ModelsRoot
from corral.remote.root import as_root
from tests.operations.fleet import (
    ARCHIVE,
    ENDED,
    INSTANCES,
    STATE,
    Fleet,
    asked,
    bare_host,
    failed,
    jobs,
    settled_host,
    steps,
)
from tests.samples import settled

PACKED = ["start build-llama.cpp", "poll build-llama.cpp"]


def test_a_settled_host_is_looked_at_and_verified_and_nothing_else(fleet: Fleet) -> None:
    fleet.add("good", settled_host(fleet, "good"))
    state = fleet.deploy()
    assert failed(state) == set()
    assert len(asked(state, "good")) == 2
    assert steps(state, "good") == ["check"]


def test_a_bare_host_gets_everything_in_order(fleet: Fleet) -> None:
    fleet.add("bare", bare_host(fleet, "bare"))
    state = fleet.deploy()
    assert failed(state) == set()
    first, *rest = asked(state, "bare")
    assert STATE in first
    assert "apt-get" in "".join(rest[:-1]).split("base64 -d")[0]
    assert steps(state, "bare") == [
        *("start build-llama.cpp", "poll build-llama.cpp", "manifest", "prove"),
        *("start fetch", "poll fetch"),
        *("key", "key", "stage", "stage", "reserve"),
        *("history", "start activate-chat", "poll activate-chat"),
        *("history", "start activate-long", "poll activate-long"),
        *("check", "prune"),
    ]


def test_no_command_carries_a_plan(fleet: Fleet) -> None:
    """An argument is at most 128 KiB long; a golden prompt or a patch may be longer."""
    fleet.add("bare", bare_host(fleet, "bare"))
    commands = asked(fleet.deploy(), "bare")
    assert max(map(len, commands)) < 1500
    assert not [command for command in commands if '"instances"' in command]


@pytest.mark.parametrize("answer", ["null", "[" * 100_000, '{"instances": []}'])
def test_a_host_that_answers_oddly_is_left_alone(fleet: Fleet, answer: str) -> None:
    fleet.add("odd", settled_host(fleet, "odd"))
    fleet.hosts["odd"]["fake_responses"][STATE] = answer
    fleet.add("good", settled_host(fleet, "good"))
    state = fleet.deploy()
    assert failed(state) == {"odd"}
    assert len(asked(state, "odd")) == 1
    assert len(asked(state, "good")) == 2


@pytest.mark.parametrize(
    ("data", "said", "reported"),
    [
        ({}, "1000", 'Next: add "_sudo": True to the data of the host'),
        ({"_sudo": True}, "sudo: a password is required", "NOPASSWD"),
        ({"_doas": True}, "doas: Authentication required", "doas.conf"),
        ({"_su_user": "root"}, "Password: su: Authentication failure", "su asks for a password"),
    ],
)
def test_a_login_that_is_not_root_stops_before_anything(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, data: dict[str, bool], said: str, reported: str
) -> None:
    fleet.add("mere", bare_host(fleet, "mere"))
    fleet.hosts["mere"] |= {"ssh_user": "ops", **data}
    fleet.hosts["mere"]["fake_responses"][STATE] = f"corral: not root: {said}"
    # pyinfra ends a run that has no host left.
    fleet.add("good", settled_host(fleet, "good"))
    state = fleet.deploy()
    assert failed(state) == {"mere"}
    (only,) = asked(state, "mere")
    become = " ".join(map(shlex.quote, as_root(data, ["id"])))
    assert f"{become} -u </dev/null" in only
    lines = "\n".join(record.getMessage() for record in caplog.records)
    assert "ops " in lines
    assert reported in lines


def test_findings_stop_their_host_and_the_first_wave(fleet: Fleet) -> None:
    fleet.add("bad", bare_host(fleet, "bad", systemd=False))
    fleet.add("bare", bare_host(fleet, "bare"))
    fleet.add("good", settled_host(fleet, "good"))
    state = fleet.deploy()
    assert failed(state) == {"bad"}
    assert len(asked(state, "bad")) == 1
    assert steps(state, "bare")[-3:] == ["stage", "stage", "reserve"]
    assert steps(state, "good") == [*PACKED, "check"]


def test_all_findings_of_all_hosts_are_told(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.add(
        "one",
        bare_host(fleet, "one", systemd=False, engine_config_files=["/etc/llama.cpp/config.ini"]),
    )
    fleet.add("two", bare_host(fleet, "two", architecture="riscv64"))
    fleet.add("good", settled_host(fleet, "good"))
    state = fleet.deploy()
    assert failed(state) == {"one", "two"}
    for said in ("systemd is not running", "config.ini exists", "riscv64 is not supported"):
        assert said in caplog.text


def test_a_host_that_cannot_be_asked_is_left_alone(fleet: Fleet) -> None:
    fleet.add("mute", None)
    fleet.add("good", settled_host(fleet, "good"))
    state = fleet.deploy()
    assert failed(state) == {"mute"}
    assert len(asked(state, "mute")) == 1
    assert len(asked(state, "good")) == 2


def test_a_failed_build_stops_before_any_instance_is_touched(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    broken = json.dumps({**ENDED, "ok": False, "error": "cmake failed", "tail": ["error: x"]})
    fleet.add("broken", bare_host(fleet, "broken"), **{"poll build-llama.cpp": broken})
    fleet.add("bare", bare_host(fleet, "bare"))
    state = fleet.connect()
    with pytest.raises(PyinfraError, match="No hosts remaining"):
        fleet.deploy(state)
    assert failed(state) == {"broken", "bare"}
    assert steps(state, "broken") == ["start build-llama.cpp", "poll build-llama.cpp"]
    assert steps(state, "bare") == []
    assert "the host that builds it did not deliver it" in caplog.text


def test_one_host_builds_and_the_others_install_what_it_built(fleet: Fleet) -> None:
    for name in ("one", "two", "three"):
        fleet.add(name, bare_host(fleet, name))
    state = fleet.deploy()
    assert failed(state) == set()
    assert jobs(state, "one") == ["build"]
    assert jobs(state, "two") == jobs(state, "three") == ["install"]


def test_a_host_that_has_the_release_packs_it_for_the_others(fleet: Fleet) -> None:
    fleet.add("bare", bare_host(fleet, "bare"))
    fleet.add("good", settled_host(fleet, "good"))
    state = fleet.deploy()
    assert failed(state) == set()
    assert (jobs(state, "bare"), jobs(state, "good")) == (["install"], ["pack"])
    assert steps(state, "good") == [*PACKED, "check"]


def test_what_is_in_the_store_is_built_nowhere(fleet: Fleet) -> None:
    fleet.add("one", bare_host(fleet, "one"))
    fleet.deploy()
    fleet.hosts.clear()
    fleet.add("new", bare_host(fleet, "new"))
    assert jobs(fleet.deploy(), "new") == ["install"]


def test_a_rotten_archive_is_told_of_and_removed(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.add("one", bare_host(fleet, "one"))
    fleet.deploy()
    (archive,) = fleet.archives_folder.glob("*/*.tar.zst")
    archive.write_bytes(bytes(len(ARCHIVE)))
    fleet.hosts.clear()
    fleet.add("new", bare_host(fleet, "new"))
    with pytest.raises(PyinfraError, match="No hosts remaining"):
        fleet.deploy()
    assert "was damaged and is removed" in caplog.text
    assert not archive.exists()
    assert jobs(fleet.deploy(), "new") == ["build"]


def test_another_host_builds_for_a_builder_that_stops_in_preflight(fleet: Fleet) -> None:
    fleet.add("box", bare_host(fleet, "box", systemd=False))
    fleet.hosts["box"]["builder"] = True
    fleet.add("bare", bare_host(fleet, "bare"))
    state = fleet.deploy()
    assert failed(state) == {"box"}
    assert jobs(state, "bare") == ["build"]


def test_a_flag_that_the_program_does_not_know_stops_its_host_before_any_weights(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    known = [flag for flag in fleet.flags("bare") if flag != "--jinja"]
    fleet.add("bare", bare_host(fleet, "bare"), manifest=json.dumps({"flags": known}))
    with pytest.raises(PyinfraError, match="No hosts remaining"):
        fleet.deploy()
    assert "@fake/bare/chat: its engine" in caplog.text
    assert "does not know --jinja" in caplog.text


def test_what_does_not_fit_stops_its_host_before_any_weights_are_fetched(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.add("full", bare_host(fleet, "full"))
    fleet.add("bare", bare_host(fleet, "bare"))
    refused = [
        {"instance": "chat", "ok": False, "message": "chat: GPU 0: too much\n  Next: less"},
        {"instance": "long", "ok": True},
    ]
    answers = fleet.hosts["full"]["fake_responses"]
    fleet.hosts["full"]["fake_responses"] = {**answers, " prove": json.dumps(refused)}
    state = fleet.deploy()
    assert failed(state) == {"full"}
    assert steps(state, "full")[-1] == "prove"
    assert "fetch" not in " ".join(steps(state, "full"))
    assert steps(state, "bare")[-3:] == ["stage", "stage", "reserve"]
    assert "[@fake/full] chat: GPU 0: too much" in caplog.text
    assert "Next: less" in caplog.text


def test_a_failed_check_fails_the_host(fleet: Fleet) -> None:
    rows = [{"instance": "chat", "check": "keys", "ok": False, "detail": "GET /props answered 200"}]
    fleet.add("open", settled_host(fleet, "open"), check=json.dumps(rows))
    fleet.add("good", settled_host(fleet, "good"))
    assert failed(fleet.deploy()) == {"open"}


def test_a_changed_key_reaches_its_instance_and_restarts_that_one_only(fleet: Fleet) -> None:
    stale = {**fleet.digests("good"), "chat": "0" * 64}
    state = settled_host(fleet, "good")
    old = settled(fleet.plan("good"), stale)
    fleet.add("good", state.model_copy(update={"instances": old.instances}))
    deployed = fleet.deploy()
    assert steps(deployed, "good") == [
        *("manifest", "prove", "key"),
        *("history", "start activate-chat", "poll activate-chat", "check", "prune"),
    ]


def test_a_mistake_in_the_inventory_stops_the_run_before_any_host_is_asked(fleet: Fleet) -> None:
    fleet.add("good", settled_host(fleet, "good"))
    fleet.hosts["good"]["instances"] = [{**INSTANCES[0], "profile": "tiny-cat"}]
    state = fleet.connect()
    with pytest.raises(PyinfraError) as caught:
        fleet.deploy(state)
    assert "@fake/good/chat" in str(caught.value)
    assert 'did you mean "tiny-chat"' in str(caught.value)
    assert "Next: " in str(caught.value)
    assert asked(state, "good") == []


def test_no_command_and_no_message_holds_a_key(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    fleet.add("bare", bare_host(fleet, "bare"))
    state = fleet.deploy()
    key = fleet.key("bare", "chat")
    shown = capfd.readouterr()
    assert len(key) >= 32
    for place in (*asked(state, "bare"), caplog.text, shown.out, shown.err):
        assert key not in place


@pytest.mark.parametrize("root", [ModelsRoot(), ModelsRoot(marked=True, unwanted_bytes=4096)])
def test_a_host_of_an_earlier_version_is_marked_and_a_left_download_goes(
    fleet: Fleet, root: ModelsRoot
) -> None:
    fleet.add("old", settled_host(fleet, "old", models_root=root))
    state = fleet.deploy()
    assert failed(state) == set()
    assert steps(state, "old") == ["start fetch", "poll fetch", "check"]


def test_weights_of_a_disk_that_is_gone_are_not_fetched_again(fleet: Fleet) -> None:
    gone = ModelsRoot(problem="/var/lib/corral/models is not where", next_step="mount it")
    fleet.add("gone", bare_host(fleet, "gone", models_root=gone))
    fleet.add("good", settled_host(fleet, "good"))
    state = fleet.deploy()
    assert failed(state) == {"gone"}
    assert len(asked(state, "gone")) == 1


def test_a_wrong_host_stops_a_deploy_of_it_and_none_of_another(fleet: Fleet) -> None:
    for name in ("good", "bad"):
        fleet.add(name, bare_host(fleet, name))
    fleet.hosts["bad"]["gpu"] = 1
    state = fleet.deploy(fleet.connect("good"))
    assert failed(state) == set()
    assert steps(state, "good")[-1] == "prune"
    assert jobs(state, "good") == ["build"]
    both = fleet.connect()
    with pytest.raises(PyinfraError, match='unknown key "gpu"'):
        fleet.deploy(both)
    assert jobs(both, "good") == []
