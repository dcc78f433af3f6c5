"""The catalog: what ships loads, and a mistake names its file, its key and the nearest key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from corral.catalog.entries import Catalog, load_catalog
from corral.catalog.profile import Profile
from corral.errors import CorralError
from corral.nvidia import versions
from tests.samples import EXAMPLES, catalog

SHIPPED = EXAMPLES / "catalog"
PROFILE = "profiles/tiny-chat.toml"
MODEL = "models/tiny-glm-moe.toml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped catalog, to be damaged."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "catalog"))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refusal(folder: Path) -> CorralError:
    with pytest.raises(CorralError) as caught:
        load_catalog(folder)
    return caught.value


def test_every_shipped_file_loads_and_is_listed_by_its_name() -> None:
    loaded = load_catalog(SHIPPED)
    for kind in ("engines", "models", "profiles", "gpus"):
        names = {path.stem for path in (SHIPPED / kind).glob("*.toml")}
        assert names
        assert set(getattr(loaded, kind)) == names


def test_every_shipped_profile_names_things_that_are_there() -> None:
    loaded: Catalog = load_catalog(SHIPPED)
    for name, profile in loaded.profiles.items():
        assert profile.engine in loaded.engines, name
        assert profile.quant in loaded.models[profile.model].quants, name
        trained = loaded.models[profile.model].train_context_tokens
        assert profile.context_tokens_per_slot <= trained, name


@pytest.mark.parametrize(
    ("file", "old", "new", "key", "near"),
    [
        (PROFILE, "slots = 2", "slotz = 2", "slotz", "slots"),
        (PROFILE, "slots = 2", "slots = 2\n[sampling]\ntop_pp = 0.5", "sampling.top_pp", "top_p"),
        (MODEL, "repo =", "rebo =", "rebo", "repo"),
        (MODEL, 'files = "F16', 'flies = "F16', "quants.F16.flies", "files"),
        ("engines/llama.cpp.toml", "targets =", "target =", "target", "targets"),
        ("gpus/h200.toml", "memory_mib", "memory_mb", "memory_mb", "memory_mib"),
    ],
)
def test_a_typo_in_a_key_names_file_key_and_nearest_key(
    folder: Path, file: str, old: str, new: str, key: str, near: str
) -> None:
    replace(folder / file, old, new)
    error = refusal(folder)
    assert file in error.where
    assert f'unknown key "{key}" (did you mean "{near}"?)' in error.what
    assert file in error.next_step


def test_all_mistakes_of_a_file_are_told_at_once(folder: Path) -> None:
    replace(folder / PROFILE, "slots = 2", "slots = 0")
    replace(folder / PROFILE, "threads = 1", 'threads = "two"')
    what = refusal(folder).what
    assert "slots" in what
    assert "threads" in what


def test_a_missing_key_is_named(folder: Path) -> None:
    replace(folder / PROFILE, "slots = 2\n", "")
    assert 'key "slots" is missing' in refusal(folder).what


@pytest.mark.parametrize("text", ["slots = ", "[quants\n", "\x00"])
def test_a_damaged_file_is_named(folder: Path, text: str) -> None:
    (folder / PROFILE).write_text(text)
    error = refusal(folder)
    assert PROFILE in error.where
    assert "not readable as TOML" in error.what


def test_a_file_that_is_not_text_is_named(folder: Path) -> None:
    (folder / PROFILE).write_bytes(b"alias = '\xff'")
    assert PROFILE in refusal(folder).where


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("flash_attention = false\n", "flash_attention"),
        ("ubatch_tokens = 4096\n", "ubatch_tokens is larger than batch_tokens"),
        ('listen = "udp"\n', "listen"),
        ("gpu_layers = -1\n", 'must be a number of layers, or "all"'),
        ('tensor_overrides = ["exps"]\n', '"exps" is not "pattern=buffer"'),
        ('tensor_overrides = ["a=b=c"]\n', "is not"),
        ('tensor_overrides = ["=CPU"]\n', "is not"),
        ('tensor_overrides = ["a{1,2}=CPU"]\n', "has a comma"),
        ('tensor_overrides = ["(=CPU"]\n', "is not a regular expression"),
        ("tensor_split = [0, 0]\n", "not all of them 0"),
        ("tensor_split = [1, -1]\n", "shares must be 0 or more"),
        ('chat_template = "a"\nchat_template_file = "b"\n', "are both set"),
        ('chat_template_file = "../secret"\n', "chat_template_file"),
        ('placement = "auto"\ncpu_moe_layers = 3\n', "cpu_moe_layers has no effect with"),
        ('placement = "auto"\ntensor_split = [1]\n', "tensor_split has no effect with"),
        ('placement = "experts-on-cpu"\ngpu_layers = 3\n', "gpu_layers has no effect with"),
        ('placement = "cpu"\nsplit_mode = "layer"\n', 'placement = "cpu"'),
        ('rope_scaling = {type = "yarn", factor = 1}\n', "rope_scaling.factor"),
        ("soak_seconds = -1\n", "soak_seconds"),
        ('perplexity = {text = "../x", limit = 9}\n', "perplexity.text"),
        ('perplexity = {text = "x", limit = 1}\n', "perplexity.limit"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(folder: Path, changes: str, said: str) -> None:
    path = folder / PROFILE
    replace(path, "ubatch_tokens = 256\n", "")
    path.write_text(changes + path.read_text())
    assert said in refusal(folder).what


@pytest.mark.parametrize(
    ("kind", "typo", "near"),
    [("engine", "llama.cp", "llama.cpp"), ("model", "smal", "small"), ("profile", "caht", "chat")],
)
def test_an_unknown_name_tells_who_asked_and_the_near_miss(kind: str, typo: str, near: str) -> None:
    with pytest.raises(CorralError) as caught:
        getattr(catalog(), kind)(typo, where="lab-1/chat")
    assert caught.value.where == "lab-1/chat"
    assert f'unknown {kind} "{typo}" (did you mean "{near}"?)' in caught.value.what
    assert f"catalog/{kind}s/" in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "memory_mib"),
    [
        ("A100 40GB", 40960),
        ("a100 40 gb", 40960),
        ("NVIDIA A100-PCIE-40GB", 40960),
        ("NVIDIA A100-SXM4-80GB", 81920),
        ("H200", 143771),
        ("3090 Ti", 24564),
        ("NVIDIA GeForce RTX 3090 Ti", 24564),
        ("NVIDIA GeForce RTX 3090", 24576),
        ("rtx8000", 46080),
        ("H100", 81559),
        ("L40S", 46068),
        ("4090", 24564),
        ("A6000", 49140),
        ("B200", 183359),
        ("V100 32GB", 32768),
        ("RTX PRO 6000", 97887),
        ("H20", 97871),
        ("NVIDIA GH200 480GB", 97871),
        ("NVIDIA A800-SXM4-80GB", 81920),
        ("A800", 81920),
        ("RTX 5060 Ti", 16311),
        ("4070", 12282),
        ("2080 Ti", 11264),
        ("A4000", 16376),
        ("RTX 4000 Ada", 20475),
    ],
)
def test_a_gpu_is_found_by_what_people_and_nvidia_smi_call_it(name: str, memory_mib: int) -> None:
    assert load_catalog(SHIPPED).gpu(name, where="--gpu").memory_mib == memory_mib


def test_no_two_gpus_have_one_name() -> None:
    gpus = load_catalog(SHIPPED).gpus
    for name, gpu in gpus.items():
        for called in (*gpu.names, *gpu.short_names):
            assert [n for n, other in gpus.items() if other.is_called(called)] == [name]


def test_an_unknown_gpu_tells_who_asked_and_the_near_miss() -> None:
    with pytest.raises(CorralError) as caught:
        load_catalog(SHIPPED).gpu("A100 400GB", where="--gpu")
    assert caught.value.where == "--gpu"
    assert 'unknown GPU "A100 400GB" (did you mean "A100 40GB"?)' in caught.value.what
    assert "catalog/gpus/" in caught.value.next_step


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("A100", '"A100 40GB" or "A100 80GB"'),
        ("nvidia a100", '"A100 40GB" or "A100 80GB"'),
        ("Tesla V100 16 GiB", '"V100 16GB"'),
        ("GeForce RTX 3O90", '"RTX 3090"'),
        ("h10O", '"H100"'),
    ],
)
def test_the_near_gpu_is_one_of_the_same_family(typed: str, near: str) -> None:
    with pytest.raises(CorralError) as caught:
        load_catalog(SHIPPED).gpu(typed, where="--gpu")
    assert caught.value.what == f'unknown GPU "{typed}" (did you mean {near}?)'


def test_chat_templates_are_read_as_they_are(folder: Path) -> None:
    (folder / "chat-templates").mkdir()
    (folder / "chat-templates" / "own.jinja").write_text("{{ messages }}\n")
    assert load_catalog(folder).chat_template("own.jinja", where="x") == "{{ messages }}\n"
    with pytest.raises(CorralError) as caught:
        load_catalog(folder).chat_template("owm.jinja", where="x")
    assert 'unknown chat template "owm.jinja" (did you mean "own.jinja"?)' in caught.value.what
    (folder / "chat-templates" / "own.jinja").write_bytes(b"\xff")
    assert "chat-templates/own.jinja" in refusal(folder).where


def test_a_far_miss_lists_what_is_known() -> None:
    with pytest.raises(CorralError, match="known: chat, long, socket"):
        catalog().profile("xyzzy", where="lab-1/chat")


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("NVIDIA H200 NVL", "h200-nvl"), ("H200 NVL", "h200-nvl"), ("NVIDIA H200", "h200"),
        ("NVIDIA B300 SXM6 AC", "b300"), ("GB200", "gb200"), ("L4", "l4"), ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", "l40"), ("Tesla T4", "t4"), ("NVIDIA A10", "a10"), ("A30", "a30"),
        ("RTX A5000", "rtx-a5000"), ("RTX 6000 Ada", "rtx-6000-ada"), ("5080", "rtx-5080"),
        ("NVIDIA GeForce RTX 5070 Ti", "rtx-5070-ti"), ("RTX 4080", "rtx-4080"),
        ("RTX 3080", "rtx-3080"), ("Tesla V100-SXM2-16GB", "v100-16gb"), ("V100", "v100-32gb"),
        ("Tesla P40", "p40"), ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
    ],
)  # fmt: skip
def test_a_gpu_is_found_by_the_name_that_people_type(name: str, entry: str) -> None:
    gpus = load_catalog(SHIPPED).gpus
    assert [found for found, gpu in gpus.items() if gpu.is_called(name)] == [entry]
    assert versions.is_known(gpus[entry].compute_capability)


@pytest.mark.parametrize("key", ["threads", "batch_threads"])
def test_minus_one_threads_is_refused_with_what_to_do(key: str) -> None:
    with pytest.raises(ValueError, match="leave the key out for all cores"):
        Profile.model_validate({"model": "m", "quant": "q", "engine": "e", "slots": 1,
                                "context_tokens_per_slot": 1, key: -1})  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"numa": "numactl"}, "needs numa_memory"),
        ({"numa_nodes": "0"}, "no effect without numa_memory"),
        ({"numa_memory": "local", "numa_nodes": "0"}, "no effect without numa_memory, or with loc"),
        ({"numa_memory": "preferred"}, "needs one node"),
        ({"numa_memory": "interleave", "numa_nodes": "0-"}, "numa_nodes"),
    ],
)
def test_keys_of_numa_nodes_that_contradict_are_refused(keys: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Profile.model_validate({"model": "m", "quant": "q", "engine": "e", "slots": 1,
                                "context_tokens_per_slot": 1, **keys})  # fmt: skip
