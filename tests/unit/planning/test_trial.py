"""The start with dummy weights of an engine that has one: the same arguments, and no more."""

from __future__ import annotations

import pytest

from corral.engines import engine_module
from corral.plan.instance import TrialPlan
from tests.samples import CHAT, host, plan, planner


@pytest.fixture
def dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(engine_module("llama.cpp")), "trial_arguments", ("--dummy", "yes"))


def test_an_engine_without_dummy_weights_has_no_trial() -> None:
    assert plan(CHAT).instances[0].trial is None


@pytest.mark.usefixtures("dummy")
def test_a_trial_has_the_servers_arguments_on_a_socket_of_its_own() -> None:
    (instance,) = plan(CHAT).instances
    trial = instance.trial
    assert isinstance(trial, TrialPlan)
    assert trial.unit == "corral-job-trial.chat.service"
    assert trial.socket == "/run/corral-job-trial.chat/llama.sock"
    assert trial.argv[-2:] == ("--dummy", "yes")
    keys = "/run/credentials/corral-job-trial.chat.service/keys.yaml"
    only_here = {trial.socket, keys, "--dummy", "yes"}
    assert only_here < set(trial.argv)
    assert set(trial.argv) - only_here < set(instance.argv)
    assert instance.key_path not in trial.argv


def test_a_trial_makes_no_new_generation(request: pytest.FixtureRequest) -> None:
    before = plan(CHAT).instances[0].generation
    request.getfixturevalue("dummy")
    assert plan(CHAT).instances[0].generation == before


@pytest.mark.usefixtures("dummy")
def test_a_chat_template_is_a_credential_as_no_generation_is_staged_yet() -> None:
    made = planner(chat_template_file="glm-4.5.jinja")
    catalog = made.catalog.model_copy(update={"chat_templates": {"glm-4.5.jinja": "x"}})
    made = made.model_copy(update={"catalog": catalog})
    (instance,) = made.plan_host(host(CHAT)).instances
    assert instance.trial is not None
    template = "/run/credentials/corral-job-trial.chat.service/chat-template.jinja"
    assert template in instance.trial.argv
    assert instance.chat_template_path not in instance.trial.argv
