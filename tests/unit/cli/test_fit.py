"""`corral fit` against a hub on loopback: a profile on GPUs, what fits at all, and wrong words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral.fit.answer import Answer
from corral.fit.offers import Offer
from tests.samples import EXAMPLES
from tests.unit.cli.test_cli import assert_one_message
from tests.unit.fit_project import Fit, ModelHub

pytestmark = pytest.mark.slow

AIR, REALTIME = "glm-4.5-air", ("--profile", "glm-4.5-air-realtime")
Z1 = ("glm-z1-32b-0414", "--profile", "glm-z1-32b")
A100, RAM = ("--gpu", "A100 40GB"), ("--ram", "128")
MIB = 1024**2


def test_a_profile_that_fits_is_a_table_a_bar_and_exit_code_zero(fit: Fit) -> None:
    said = fit(AIR, *REALTIME, *A100, *RAM)
    assert (said.code, said.err) == (0, "")
    heads, gpu, host, _, bar, legend, _, last = said.out.splitlines()
    names = ["device", "weights", "KV", "compute", "runtime", "others", "of", "free"]
    assert heads.split() == names
    cells = gpu.split()
    assert (cells[:4], cells[5:8]) == (["GPU", "0", "32.8", "3.1"], ["0.7", "0.0", "40.0"])
    assert 1.0 <= float(cells[8]) < 2.0  # the reserve, and less than another part of the experts
    assert cells[9] == "fits"
    assert host.split()[:3] == ["host", "41.7", "0.0"]
    assert host.split()[-1] == "fits"
    assert bar.startswith("GPU 0  █")
    assert bar.endswith(" of 40.0 GiB")
    assert [part.split()[0] for part in legend.split("  ")] == ["█", "▓", "▒", "░", "·"]
    assert "Weights and KV are exact" in last
    assert "All layers on GPUs, in host memory experts of the first 28 layers" in last


def test_a_bar_shows_shares_of_the_gpu(fit: Fit) -> None:
    said = fit(*Z1, "--gpu", "H200", *RAM)
    (bar,) = [line for line in said.out.splitlines() if line.startswith("GPU 0  █")]
    marks = bar.split("  ")[1]
    assert len(marks) == 50
    assert marks == "".join(sorted(marks, key="█▓▒░·".index))
    row = fit.json(*Z1, "--gpu", "H200").rows[0]
    parts_mib = (row.weights_mib, row.kv_mib, row.compute_mib + row.runtime_mib)
    for mark, mib in zip("█▓▒", parts_mib, strict=True):
        assert abs(marks.count(mark) - 50 * mib / 143771) < 1
    assert marks.count("·") == 50 - sum(marks.count(mark) for mark in "█▓▒")
    assert bar.endswith(f"  {sum(parts_mib) / 1024:.1f} of 140.4 GiB")


def test_a_gpu_that_is_too_small_has_a_full_bar_that_says_so(fit: Fit) -> None:
    fit.add("gpus/small.toml", gpu_file("Small", 16384))
    said = fit(*Z1, "--gpu", "Small", *RAM)
    assert (said.code, said.err) == (1, "")
    _, row, _, _, bar, *_ = said.out.splitlines()
    assert row.endswith("GiB too little")
    assert bar.endswith("of 16.0 GiB  does not fit")
    assert len(bar.split("  ")[1]) == 50
    assert "·" not in bar


def gpu_file(name: str, memory_mib: int) -> str:
    names = f'names = ["{name}"]\nshort_names = ["{name}"]'
    return f'{names}\nmemory_mib = {memory_mib}\ncompute_capability = "8.0"\n'


def test_a_host_that_is_too_small_is_exit_code_one(fit: Fit) -> None:
    said = fit(AIR, "--profile", "glm-4.5-air-experts-on-cpu", *A100, "--ram", "8")
    assert (said.code, said.err) == (1, "")
    (row,) = [line for line in said.out.splitlines() if line.startswith("host")]
    assert row.endswith("0.6 GiB too little")
    slow = fit(AIR, "--profile", "glm-4.5-air-experts-on-cpu", *A100, "--ram", "64")
    assert slow.code == 0
    assert "fits, but weights will be read from disk again and again" in slow.out
    assert "memory unknown, use --ram" in fit(AIR, *REALTIME, *A100).out


def test_json_has_every_device_the_placement_and_what_is_unknown(fit: Fit) -> None:
    document = json.loads(fit(AIR, *REALTIME, *A100, *RAM, "--json").out)
    assert set(document) == {"rows", "placement", "unknown"}
    assert [row["device"] for row in document["rows"]] == ["GPU 0", "host"]
    assert set(document["rows"][0]) == {
        "device", "weights_mib", "kv_mib", "compute_mib", "runtime_mib", "others_mib",
        "memory_mib", "free_mib", "verdict",
    }  # fmt: skip
    assert document["placement"]["cpu_moe_layers"] == 28
    assert Answer.model_validate(document).fits


def test_without_a_profile_what_fits_is_listed_best_first(fit: Fit) -> None:
    said = fit(AIR, *A100, *RAM)
    assert (said.code, said.err) == (0, "")
    heads, first, *_ = said.out.splitlines()
    assert heads.split()[:3] == ["quant", "GiB", "KV"]
    assert first.split()[:5] == ["UD-Q4_K_XL", "74.4", "q4_0", "16,384", "48%"]
    rows = [Offer.model_validate(row) for row in json.loads(fit(AIR, *A100, *RAM, "--json").out)]
    assert len(rows) == len(said.out.splitlines()) - 3
    shares = [row.weights_on_gpus_percent for row in rows]
    assert shares == sorted(shares, reverse=True)


def test_nothing_that_fits_is_said_and_exit_code_one(fit: Fit) -> None:
    said = fit(AIR, "--ram", "4")
    assert (said.code, said.out) == (1, "nothing fits, not even 4,096 tokens with q4_0\n")
    empty = fit(AIR, "--ram", "4", "--json")
    assert (empty.code, json.loads(empty.out)) == (1, [])


def test_offers_say_whether_all_or_none_is_on_gpus(fit: Fit) -> None:
    whole = fit(AIR, "--gpu", "H200", *RAM).out.splitlines()
    assert [line.split()[4] for line in whole[1:4]] == ["all"] * 3
    cpu = fit("glm-z1-32b-0414", "--ram", "64").out.splitlines()
    assert [line.split()[4] for line in cpu[1:4]] == ["none"] * 3


@pytest.mark.parametrize(
    ("words", "memory_mib"),
    [
        (("--gpu", "4 x H200"), [143771] * 4),
        (("--gpu", "2x A100 80GB"), [81920] * 2),
        (("--gpu", "NVIDIA H200", "--gpu", "a100-80gb"), [143771, 81920]),
    ],
)
def test_several_gpus_are_named_in_one_word_or_several(
    fit: Fit, words: tuple[str, ...], memory_mib: list[int]
) -> None:
    *gpus, _ = fit.json(AIR, *REALTIME, *words, *RAM).rows
    assert [row.device for row in gpus] == [f"GPU {n}" for n in range(len(gpus))]
    assert [row.memory_mib for row in gpus] == memory_mib
    assert all(row.weights_mib for row in gpus)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("glm-4.5-aid",), 'unknown model "glm-4.5-aid" (did you mean "glm-4.5-air"?)'),
        ((f"{AIR}/Q9",), "model glm-4.5-air has no quant Q9 (known: UD-Q4_K_XL)"),
        ((AIR, "--profile", "glm-4.5-air-realtme"), 'did you mean "glm-4.5-air-realtime"'),
        ((AIR, *REALTIME, "--engine", "lama.cpp"), 'unknown engine "lama.cpp"'),
        ((AIR, "--gpu", "H2200"), '--gpu: unknown GPU "H2200" (did you mean "H200"?)'),
        ((AIR, "--gpu", "0 x H200"), '--gpu: unknown GPU "0 x H200"'),
        (("glm-4.7",), "glm-4.7/UD-Q2_K_XL: corral.lock has no entry for model glm-4.7"),
        (("glm-4.7/Q4_K_M", *REALTIME), "corral.lock has no entry for model glm-4.7, quant Q4_K_M"),
    ],
)
def test_names_that_are_not_known_or_not_locked_are_one_message(
    fit: Fit, words: tuple[str, ...], said: str
) -> None:
    assert_one_message(fit(*words, *A100), said)


def test_a_model_that_is_not_locked_says_what_to_run(fit: Fit) -> None:
    assert_one_message(
        fit("glm-4.7", "--gpu", "4 x H200"),
        "then run `corral lock` with that inventory: only models of instances",
    )


def test_a_mistake_in_another_file_of_the_catalog_is_none_of_a_question(fit: Fit) -> None:
    words = (AIR, *REALTIME, *A100, *RAM)
    before = fit(*words)
    for folder in ("profiles", "models", "engines", "platforms"):
        fit.add(f"{folder}/own.toml", "x = 1")
    assert fit(*words) == before
    assert_one_message(fit(AIR, "--profile", "own", *A100, *RAM), "profiles/own.toml", '"x"')


def test_where_it_shall_fit_is_asked_for(fit: Fit) -> None:
    assert_one_message(fit(AIR), "needs either a host", "add --host, or --gpu and --ram")


def test_a_profile_may_be_asked_of_another_model_or_engine(fit: Fit) -> None:
    other = fit.json("glm-4.7-flash", *REALTIME, "--gpu", "3090 Ti", *RAM)
    assert other.fits
    assert 16000 < other.rows[0].weights_mib < 20000
    words = ("glm-z1-32b-0414", *REALTIME, *A100, *RAM)
    plain, ik = fit.json(*words), fit.json(*words, "--engine", "ik_llama.cpp")
    assert (plain.rows[0].runtime_mib, ik.rows[0].runtime_mib) == (600 + 136, 600 + 100)


def changed(profile: str, old: str, new: str) -> str:
    """A profile of the catalog with something else in it."""
    text = (EXAMPLES / "catalog" / "profiles" / f"{profile}.toml").read_text()
    assert old in text
    return text.replace(old, new)


UNEQUAL = changed("glm-4.5-air-realtime", 'kv_type_v = "q8_0"', 'kv_type_v = "q4_0"')
OVERRIDE = changed(
    "glm-4.5-air-realtime", 'placement = "auto"', 'tensor_overrides = ["exps=CUDA1"]'
)
LONG = changed("glm-z1-32b", "context_tokens_per_slot = 32768", "context_tokens_per_slot = 65537")
TOO_FAR = LONG.replace("slots =", "rope_scaling = {type = 'yarn', factor = 2.0}\nslots =")
MAIN_GPU = changed(
    "glm-4.5-air-realtime", 'placement = "auto"', 'split_mode = "none"\nmain_gpu = 1'
)


@pytest.mark.parametrize(
    ("model", "profile", "said"),
    [
        ("glm-4.7-flash", UNEQUAL, "profile own: latent attention has one cache"),
        (AIR, OVERRIDE, "tensor_overrides names the buffer CUDA1, known here: CPU, CUDA0"),
        (AIR, MAIN_GPU, "main_gpu is 1, but the instance has 1 GPU"),
        (AIR, changed("glm-4.7-q4-graph", "glm-4.7", AIR), "split_mode"),
        ("glm-z1-32b-0414", LONG, "65537 context tokens a slot, but glm-z1-32b-0414 was trained"),
        ("glm-z1-32b-0414", TOO_FAR, "rope_scaling of glm-z1-32b-0414 reaches 65536"),
    ],
)
def test_a_profile_that_asks_for_what_cannot_be_is_one_message(
    fit: Fit, model: str, profile: str, said: str
) -> None:
    fit.add("profiles/own.toml", profile)
    words = (model, "--profile", "own", "--engine", "llama.cpp", *A100, *RAM)
    assert_one_message(fit(*words), said)


def test_a_profile_for_the_cpu_leaves_gpus_alone(fit: Fit) -> None:
    """llama.cpp knows no iq4_nl cache in CUDA, which is no matter here."""
    on_cpu = 'placement = "cpu"\nkv_type_k = "iq4_nl"\nkv_type_v = "iq4_nl"\nslots ='
    fit.add("profiles/own.toml", changed("glm-z1-32b", "slots =", on_cpu))
    rows = fit.json("glm-z1-32b-0414", "--profile", "own", *A100, *RAM).rows
    assert [(row.device, row.kv_mib) for row in rows] == [("host", 1952 * 18 // 64)]


def test_auto_without_a_way_says_what_lacks_and_what_to_type(fit: Fit) -> None:
    fit.add("gpus/small.toml", gpu_file("Small", 10240))
    said = fit(AIR, *REALTIME, "--gpu", "Small", *RAM)
    where = "profile glm-4.5-air-realtime: GPU 0 of its set needs"
    assert_one_message(said, where, "8.4 GiB is available", "corral fit glm-4.5-air")


def bodies(log: str) -> list[tuple[str, int]]:
    """Name and bytes of each body that the hub's storage sent."""
    lines = [line.split() for line in log.splitlines() if " /cdn/" in line]
    return [(line[1].rsplit("/", 1)[1], int(line[4].removeprefix("bytes="))) for line in lines]


def test_a_header_costs_under_8_mib_and_the_hub_is_asked_once(
    fit: Fit, models: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cold"))
    log = models.running.log
    before = log.getvalue()
    first = fit(AIR, *REALTIME, *A100, *RAM)
    models.running.logged(before.count("\n") + 2)
    asked = log.getvalue()
    ((name, sent_bytes),) = bodies(asked[len(before) :])
    assert name == "GLM-4.5-Air-UD-Q4_K_XL.gguf"
    assert 0 < sent_bytes < 8 * MIB
    assert fit(AIR, *REALTIME, *A100, *RAM) == first
    assert log.getvalue() == asked
