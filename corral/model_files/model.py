"""A model in safetensors: the tensors of all its shards, and its dimensions where known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from corral.errors import CorralError
from corral.model_files.config import ModelDimensions, UnknownModelError, read_dimensions
from corral.model_files.safetensors import SafetensorsHeader, Tensor


@dataclass(frozen=True, slots=True)
class SafetensorsModel:
    """A model; ``dimensions``: None where config.json is not enough; ``unknown``: what it lacks."""

    tensors: tuple[Tensor, ...]
    dimensions: ModelDimensions | None
    unknown: str
    file_bytes: int


def safetensors_model(
    headers: Sequence[SafetensorsHeader], config: bytes, *, where: str
) -> SafetensorsModel:
    """A model from the headers of its shards and config.json.

    Raises CorralError for a tensor in two shards; ``where`` names the model.
    """
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    name, count = (
        Counter(tensor.name for tensor in tensors).most_common(1)[0] if tensors else ("", 0)
    )
    if count > 1:
        what = f"tensor {name} is in {count} shards"
        raise CorralError(where, what, "choose a revision whose files are whole")
    try:
        dimensions, unknown = read_dimensions(config), ""
    except UnknownModelError as error:
        dimensions, unknown = None, str(error)
    file_bytes = sum(header.file_bytes for header in headers)
    return SafetensorsModel(tensors, dimensions, unknown, file_bytes)
