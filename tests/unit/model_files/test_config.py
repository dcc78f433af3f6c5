"""config.json: the dimensions that memory depends on, or one sentence why not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corral.errors import CorralError
from corral.model_files.config import UnknownModelError, read_dimensions
from corral.model_files.model import safetensors_model
from corral.model_files.safetensors import parse_safetensors
from tests.unit.model_dimensions import GLM_4_5_AIR, GLM_4_7_FLASH, GLM_4_32B
from tests.unit.safetensors_files import header_of


def content(config: dict[str, Any], **changes: Any) -> bytes:
    merged = {key: value for key, value in (config | changes).items() if value != "absent"}
    return json.dumps(merged).encode()


def refusal(config: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(UnknownModelError) as caught:
        read_dimensions(content(config, **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_dimensions_are_read_and_others_ignored() -> None:
    found = read_dimensions(content(GLM_4_5_AIR, transformers_version="5", rope_theta=1e6))
    assert (found.kv_heads, found.head_width, found.latent) == (8, 128, False)
    assert (found.num_nextn_predict_layers, found.block_rows) == (1, 1)


def test_absent_keys_have_the_defaults_of_transformers() -> None:
    found = read_dimensions(content(GLM_4_32B, head_dim=None, num_key_value_heads="absent"))
    assert (found.kv_heads, found.head_width) == (48, 128)
    assert found.n_routed_experts == 0
    assert read_dimensions(content(GLM_4_7_FLASH)).latent


@pytest.mark.parametrize("key", ["architectures", "hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_missing_key_is_named(key: str) -> None:
    assert f'key "{key}" is missing' in refusal(GLM_4_5_AIR, **{key: "absent"})


@pytest.mark.parametrize("value", [0, -1, 2**31, "many", 1.5, None, [1]])
def test_a_wrong_value_is_named(value: Any) -> None:
    assert "num_hidden_layers" in refusal(GLM_4_5_AIR, num_hidden_layers=value)


def test_an_unknown_architecture_or_quantization_is_named() -> None:
    assert 'architecture "Llama" is unknown' in refusal(GLM_4_5_AIR, architectures=["Llama"])
    awq = {"quant_method": "awq"}
    assert 'quantization "awq" is unknown' in refusal(GLM_4_5_AIR, quantization_config=awq)
    assert "kv_lora_rank" in refusal(GLM_4_7_FLASH, kv_lora_rank=None)
    assert "smaller than" in refusal(GLM_4_32B, head_dim=None, hidden_size=40)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_other_documents_are_refused(text: bytes) -> None:
    with pytest.raises(UnknownModelError, match=r"config\.json"):
        read_dimensions(text)


def test_a_model_is_the_tensors_of_all_shards() -> None:
    shards = [parse_safetensors(header_of({name: ("BF16", (2, 2))})) for name in ("a", "b")]
    found = safetensors_model(shards, content(GLM_4_5_AIR), where="m")
    assert [tensor.name for tensor in found.tensors] == ["a", "b"]
    assert found.dimensions
    assert found.file_bytes == sum(shard.file_bytes for shard in shards)
    unknown = safetensors_model(shards, b"{}", where="m")
    assert unknown.dimensions is None
    assert "architectures" in unknown.unknown
    with pytest.raises(CorralError, match="tensor a is in 2 shards"):
        safetensors_model([shards[0], shards[0]], content(GLM_4_5_AIR), where="m")
