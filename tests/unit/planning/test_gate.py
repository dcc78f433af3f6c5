"""From a profile to what its server must prove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.catalog.entries import Catalog, load_catalog
from corral.catalog.gate import GoldenPrompt
from corral.errors import CorralError
from corral.plan.gate import GatePlan
from corral.plan.instance import INSTANCE_FILES, InstancePlan
from corral.planning.gate import is_proved
from corral.planning.planner import Planner
from corral.schema import parse
from tests.samples import CHAT, EXAMPLES, GPU, host, planner
from tests.unit.catalog.test_entries import CATALOG

GOLDEN = {"prompt": "Capital of France?", "max_tokens": 64, "require": ["Paris"]}
PERPLEXITY = {"text": "wiki.txt", "limit": 12.5}
TEXT = "one two three\n"


def with_text(text: str = TEXT, *, built: bool = True, **chat: Any) -> Planner:
    """A planner whose catalog has a reference text, and an engine that can use it."""
    base = planner(perplexity=PERPLEXITY, **chat)
    engine = base.catalog.engines["llama.cpp"]
    targets = (*engine.targets, "llama-perplexity") if built else engine.targets
    changes = {
        "references": {"wiki.txt": text},
        "engines": {"llama.cpp": engine.model_copy(update={"targets": targets})},
    }
    return base.model_copy(update={"catalog": base.catalog.model_copy(update=changes)})


def planned(made: Planner | None = None, gpus: Any = None, **chat: Any) -> InstancePlan:
    made = made or planner(**chat)
    return made.plan_host(host(CHAT, **({"gpus": gpus} if gpus else {}))).instances[0]


def refusal(made: Planner | None = None, **chat: Any) -> str:
    with pytest.raises(CorralError) as caught:
        planned(made, **chat)
    return str(caught.value)


def test_a_plain_profile_is_measured_and_asked_for_no_more() -> None:
    gate = planned().gate
    assert gate.speed is not None
    assert gate == GatePlan(speed=gate.speed)
    assert gate.speed.model_dump() == {
        "prompt_tokens": (512,), "generated_tokens": 64, "runs": 3, "max_runs": 10, "epsilon": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("context", "gpus", "lengths"),
    [
        (256, GPU, (64,)),
        (2048, GPU, (512,)),
        (5120, None, (512, 1280)),
        (8192, None, (512, 2048)),
        (8192, GPU, (512, 2048)),
    ],
)
def test_lengths_are_short_and_a_quarter_of_the_context(
    context: int, gpus: Any, lengths: tuple[int, ...]
) -> None:
    speed = planned(context_tokens_per_slot=context, gpus=gpus).gate.speed
    assert speed is not None
    assert speed.prompt_tokens == lengths


@pytest.mark.parametrize(("gpus", "longest"), [(None, 2048), (GPU, 8192)])
def test_no_length_takes_too_long(gpus: Any, longest: int) -> None:
    scaling = {"type": "yarn", "factor": 16}
    speed = planned(context_tokens_per_slot=131072, rope_scaling=scaling, gpus=gpus).gate.speed
    assert speed is not None
    assert speed.prompt_tokens == (512, longest)


def test_a_profile_says_its_own_lengths_or_none() -> None:
    speed = planned(speed={"prompt_tokens": [900, 100, 100], "epsilon": 0.2}).gate.speed
    assert speed is not None
    assert (speed.prompt_tokens, speed.epsilon) == ((100, 900), 0.2)
    assert planned(speed={"off": True}).gate.speed is None


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ({"speed": {"prompt_tokens": [2000]}}, "speed: 2064 tokens do not fit into 2048"),
        ({"golden": [{**GOLDEN, "max_tokens": 2048}]}, "golden: max_tokens 2048 does not fit"),
    ],
)
def test_what_does_not_fit_into_a_slot_is_refused(chat: dict[str, Any], said: str) -> None:
    assert said in refusal(**chat)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"require": ["("]}, '"(" is not a regular expression'),
        ({"forbid": ["["]}, '"[" is not a regular expression'),
        ({"max_tokens": 0}, "max_tokens"),
        ({"expect": "x"}, 'unknown key "expect"'),
    ],
)
def test_a_golden_prompt_with_a_mistake_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CorralError, match="fix it") as caught:
        parse(GoldenPrompt, {**GOLDEN, **change}, where="here", next_step="fix it")
    assert said in caught.value.what


@pytest.mark.parametrize("speed", [{"runs": 1}, {"runs": 4, "max_runs": 3}, {"epsilon": 1}])
def test_speeds_that_could_decide_nothing_are_refused(speed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="speed"):
        planner(speed=speed)


def test_a_changed_gate_makes_no_new_generation() -> None:
    before = planned()
    changes: dict[str, Any] = {
        "golden": [GOLDEN], "speed": {"epsilon": 0.3}, "soak_seconds": 9, "perplexity": PERPLEXITY,
    }  # fmt: skip
    after = planned(with_text(**{k: v for k, v in changes.items() if k != "perplexity"}))
    plain = planned(with_text().model_copy(update={"catalog": without_perplexity()}))
    assert after.gate != plain.gate
    assert after.generation == plain.generation
    assert planned(golden=[GOLDEN], soak_seconds=9).generation == before.generation
    assert planned(golden=[GOLDEN]).gate.golden == (GoldenPrompt.model_validate(GOLDEN),)
    assert planned(soak_seconds=9).gate.soak_seconds == 9


@pytest.mark.parametrize(
    ("profile", "proved"),
    [
        ({}, (False, False)),
        ({"probe_tool_call": True}, (True, False)),
        ({"probe_reasoning": True}, (False, True)),
        ({"probe_tool_call": False, "probe_reasoning": True}, (False, True)),
    ],
)
def test_parsers_are_proved_where_the_profile_asks_for_it(
    profile: dict[str, Any], proved: tuple[bool, bool]
) -> None:
    gate = planned(**profile).gate
    assert (gate.tool_call, gate.reasoning) == proved


def test_proofs_of_parsers_take_their_time_and_make_no_new_generation() -> None:
    before, after = planned(), planned(probe_tool_call=True, probe_reasoning=True)
    assert after.generation == before.generation
    assert after.activation.limit_seconds > before.activation.limit_seconds


def test_a_parser_is_proved_unless_the_profile_says_otherwise() -> None:
    assert is_proved(None, "glm45")
    assert is_proved(True, None)
    assert not is_proved(None, None)
    assert not is_proved(False, "glm45")


def without_perplexity() -> Catalog:
    known = with_text().catalog
    plain = known.profiles["chat"].model_copy(update={"perplexity": None})
    return known.model_copy(update={"profiles": {**known.profiles, "chat": plain}})


def test_perplexity_is_measured_on_a_text_that_travels_with_the_generation() -> None:
    found = planned(with_text())
    gate = found.gate.perplexity
    assert gate is not None
    folder = f"{found.folder}/generations/{found.generation}"
    assert gate.text_path.startswith(f"{folder}/reference-")
    assert (gate.text, gate.limit, found.reference_text) == ("wiki.txt", 12.5, TEXT)
    assert "reference_text" in INSTANCE_FILES
    words = " ".join(gate.argv)
    assert gate.argv[0].endswith("/bin/llama-perplexity")
    for part in (f"--file {gate.text_path}", "--ctx-size 512 --batch-size 512", "--threads 3",
                 "--n-gpu-layers 0 --fit off"):  # fmt: skip
        assert part in words
    assert planned(with_text("another\n")).gate.perplexity != gate


def test_without_the_program_or_the_text_perplexity_is_a_mistake() -> None:
    refused = refusal(with_text(built=False))
    assert 'add "llama-perplexity" to targets in catalog/engines/llama.cpp.toml' in refused
    assert 'unknown reference "wiki.txt"' in refusal(perplexity=PERPLEXITY)


def test_no_text_reaches_the_helpers_arguments() -> None:
    plan = with_text().plan_host(host(CHAT))
    assert TEXT.strip() not in plan.to_helper()


# The hard day changes between models whose weights are random: no reply is the right one.
@pytest.mark.parametrize("name", sorted(n for n in CATALOG.profiles if "chaos" not in n))
def test_every_shipped_profile_has_golden_prompts(name: str) -> None:
    profile = CATALOG.profiles[name]
    assert profile.golden
    assert all(golden.exact or golden.require for golden in profile.golden)
    is_of_the_lab = name.startswith("tiny-")
    assert profile.speed.off is is_of_the_lab
    assert (profile.golden[0].exact is not None) is is_of_the_lab


def test_every_shipped_reference_is_read(tmp_path: Path) -> None:
    from corral.catalog.entries import load_catalog

    (tmp_path / "references").mkdir()
    (tmp_path / "references" / "wiki.txt").write_text(TEXT)
    assert load_catalog(tmp_path).references == {"wiki.txt": TEXT}


def test_long_prompts_of_the_speed_gate_have_time() -> None:
    def limit(*prompt_tokens: int) -> int:
        speed = {"prompt_tokens": list(prompt_tokens), "max_runs": 10}
        kept = planner(context_tokens_per_slot=40960, speed=speed)
        small = kept.catalog.models["small"].model_copy(update={"train_context_tokens": 40960})
        models = kept.catalog.model_copy(update={"models": {"small": small}})
        made = kept.model_copy(update={"catalog": models}).plan_host(host(CHAT)).instances[0]
        return made.activation.limit_seconds

    assert limit(512, 8192) == limit(512)
    # Two starts in place, ten runs at 100 tokens/s at least.
    assert limit(512, 32768) - limit(512) >= 2 * (10 * (32768 - 8192) // 100)


def test_the_gate_of_graph_mode_sees_a_loss_of_three_percent_below_32k() -> None:
    speed = load_catalog(EXAMPLES / "catalog").profiles["glm-4.7-q4-graph"].speed
    assert (speed.prompt_tokens, speed.epsilon) == ((512, 32768), 0.03)
