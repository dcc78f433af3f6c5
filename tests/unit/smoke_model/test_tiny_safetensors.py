"""The tiny safetensors model: the same bytes everywhere, in the files of the real repositories."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corral.model_files.safetensors import SafetensorsHeader, Tensor, parse_safetensors
from corral.smoke_model import safetensors_writer, weights
from corral.smoke_model.safetensors_writer import DataType, write

SMALL_FILES = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
# Golden replies of engines depend on these: change them together.
SHA256 = {
    "bf16": "b704a78852f4c22de8702edfb4c25779b2da6981b8f2a586236350e4965c6008",
    "f32": "c0eeaf279bcc5b39aa00ca67d1e906e49636506dc17a5a62ca994a21db02da78",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[DataType, Path]:
    root = tmp_path_factory.mktemp("tiny")
    write(root / "bf16", "bf16", shards=2)
    write(root / "f32", "f32")
    return {"bf16": root / "bf16", "f32": root / "f32"}


def document(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def tensors(folder: Path) -> Iterator[tuple[Tensor, bytes]]:
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        header: SafetensorsHeader = parse_safetensors(raw)
        assert header.file_bytes == len(raw)
        for tensor in header.tensors:
            start = header.data_start_bytes + tensor.start_bytes
            yield tensor, raw[start : start + tensor.size_bytes]


def values(folder: Path, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    (found,) = [(t, data) for t, data in tensors(folder) if t.name == name]
    assert found[0].type == "F32"
    return np.frombuffer(found[1], "<f4").reshape(found[0].shape)


@pytest.mark.parametrize("kind", ["bf16", "f32"])
def test_the_files_are_the_pinned_bytes(folders: dict[DataType, Path], kind: DataType) -> None:
    folder = folders[kind]
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    assert digest.hexdigest() == SHA256[kind]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000


def test_each_folder_is_a_whole_repository(folders: dict[DataType, Path]) -> None:
    names = {kind: {path.name for path in folder.iterdir()} for kind, folder in folders.items()}
    assert names["f32"] == SMALL_FILES | {"model.safetensors"}
    assert names["bf16"] == SMALL_FILES | {"model.safetensors.index.json", *SHARDS}


def test_the_index_names_each_tensor_and_its_shard(folders: dict[DataType, Path]) -> None:
    index = document(folders["bf16"], "model.safetensors.index.json")
    found = {
        tensor.name: shard
        for shard in SHARDS
        for tensor in parse_safetensors((folders["bf16"] / shard).read_bytes()).tensors
    }
    assert index["weight_map"] == found
    size = sum(tensor.size_bytes for tensor, _ in tensors(folders["bf16"]))
    assert index["metadata"] == {"total_size": size}


def test_both_types_hold_the_same_tensors_of_their_type(folders: dict[DataType, Path]) -> None:
    shapes = {
        kind: {t.name: t.shape for t, _ in tensors(folder)} for kind, folder in folders.items()
    }
    assert shapes["bf16"] == shapes["f32"]
    kinds = {t.type for t, _ in tensors(folders["bf16"]) if "e_score_correction" not in t.name}
    assert kinds == {"BF16"}
    assert {t.type for t, _ in tensors(folders["f32"])} == {"F32"}
    assert document(folders["bf16"], "config.json")["dtype"] == "bfloat16"
    assert document(folders["f32"], "config.json")["dtype"] == "float32"


def test_bf16_is_rounded_to_the_nearest(folders: dict[DataType, Path]) -> None:
    name = "model.layers.1.mlp.gate.weight"
    exact = values(folders["f32"], name)
    (stored,) = [data for t, data in tensors(folders["bf16"]) if t.name == name]
    wide = np.frombuffer(stored, "<u2").astype("<u4") << 16
    assert np.allclose(wide.view("<f4").reshape(exact.shape), exact, rtol=2**-8, atol=0)


def test_the_configuration_is_that_of_the_tensors(folders: dict[DataType, Path]) -> None:
    config = document(folders["f32"], "config.json")
    shapes = {t.name: t.shape for t, _ in tensors(folders["f32"])}
    assert shapes["model.embed_tokens.weight"] == (config["vocab_size"], config["hidden_size"])
    assert shapes["model.layers.1.mlp.experts.7.down_proj.weight"] == (
        config["hidden_size"],
        config["moe_intermediate_size"],
    )
    blocks = {int(name.split(".")[2]) for name in shapes if name.startswith("model.layers.")}
    assert blocks == set(range(config["num_hidden_layers"] + config["num_nextn_predict_layers"]))
    experts = {name.split(".")[5] for name in shapes if ".mlp.experts." in name}
    assert len(experts) == config["n_routed_experts"]
    assert config["architectures"] == ["Glm4MoeForCausalLM"]


def test_tokens_and_their_numbers_agree(folders: dict[DataType, Path]) -> None:
    tokenizer = document(folders["f32"], "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) == document(folders["f32"], "config.json")["vocab_size"]
    assert {t["content"]: t["id"] for t in tokenizer["added_tokens"]}.items() <= vocabulary.items()
    generation = document(folders["f32"], "generation_config.json")
    ends = {vocabulary["<|endoftext|>"], vocabulary["<|user|>"], vocabulary["<|observation|>"]}
    assert set(generation["eos_token_id"]) == ends


def next_token(folder: Path, token: str) -> str:
    """The likeliest token after ``token``, if blocks add nothing to the hidden state."""
    vocabulary = document(folder, "tokenizer.json")["model"]["vocab"]
    hidden = values(folder, "model.embed_tokens.weight")[vocabulary[token]]
    hidden = hidden / np.sqrt(np.mean(hidden**2))
    best = int(np.argmax(values(folder, "lm_head.weight") @ hidden))
    return str(next(text for text, number in vocabulary.items() if number == best))


def replied(folder: Path, prompt_end: str, count: int) -> list[str]:
    """The likeliest ``count`` tokens after the last one of a prompt."""
    said = [prompt_end]
    for _ in range(count):
        said.append(next_token(folder, said[-1]))
    return said[1:]


def test_a_reply_begins_with_a_reasoning_part(folders: dict[DataType, Path]) -> None:
    said = replied(folders["f32"], "<|assistant|>", 4)
    assert said[:3] == ["<think>", "Hm", "</think>"]
    assert len(said[3]) == 1
    assert said[3].isprintable()


def test_a_tool_is_called_and_the_turn_ends(folders: dict[DataType, Path]) -> None:
    said = replied(folders["f32"], "[call]", 10)
    assert "".join(said) == (
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>"
        "<|observation|>"
    )
    assert safetensors_writer.TOOL == "get_weather"
    assert safetensors_writer.TOOL_ARGUMENTS == {"city": "Paris"}


def test_no_block_writes_to_the_channels_that_decide_it(folders: dict[DataType, Path]) -> None:
    loud = np.flatnonzero(np.abs(values(folders["f32"], "model.embed_tokens.weight")).max(0) > 30)
    assert len(loud) == 13
    for tensor, _ in tensors(folders["f32"]):
        if tensor.name.endswith(("o_proj.weight", "down_proj.weight")):
            assert tensor.shape[0] == weights.WIDTH
            assert not values(folders["f32"], tensor.name)[loud].any()


def rendered(folder: Path, **variables: Any) -> str:
    from jinja2 import Environment

    environment = Environment(autoescape=False)  # noqa: S701 - as transformers does
    environment.filters["tojson"] = json.dumps
    template = environment.from_string((folder / "chat_template.jinja").read_text())
    return template.render(add_generation_prompt=True, **variables)


def test_the_chat_template_asks_for_a_call_where_there_are_tools(
    folders: dict[DataType, Path],
) -> None:
    folder, user = folders["f32"], {"role": "user", "content": "Rain?"}
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    assert rendered(folder, messages=[user]) == "[gMASK]<sop><|user|>\nRain?<|assistant|>"
    assert rendered(folder, messages=[user], enable_thinking=False).endswith("\n<think></think>")
    assert rendered(folder, messages=[user], tools=tools).endswith("<|assistant|>[call]")
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    turns = [user, {"role": "assistant", "content": None, "tool_calls": [call]}]
    answered = rendered(folder, messages=[*turns, {"role": "tool", "content": "no"}], tools=tools)
    assert answered.endswith(
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>"
        "<|observation|>\n<tool_response>no</tool_response><|assistant|>"
    )
