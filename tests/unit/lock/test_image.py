"""Lock entries of a site's own images: digest and size of the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from corral.catalog.image import Image
from corral.errors import CorralError
from corral.lock.image import locked_image


def image(source: Path, **more: str | int) -> Image:
    return Image.model_validate({"source": str(source), "program": "/app/server", **more})


def test_the_file_of_this_controller_is_read_once(tmp_path: Path) -> None:
    source = tmp_path / "site.sif"
    source.write_bytes(b"sif" * 9)
    first = locked_image("site", image(source), None)
    assert (first.image_sha256, first.image_bytes) == (hashlib.sha256(b"sif" * 9).hexdigest(), 27)
    source.write_bytes(b"new")
    assert locked_image("site", image(source), first) == first
    assert locked_image("site", image(source), None).image_bytes == 3


def test_a_digest_of_the_catalog_is_taken_as_it_is(tmp_path: Path) -> None:
    """Then nobody knows its size before a host has it."""
    found = locked_image("site", image(tmp_path / "none.sif", sha256="5" * 64), None)
    assert (found.image_sha256, found.image_bytes) == ("5" * 64, None)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "not readable here"), (b"", "is empty"), (b"sif" * 9, "more than")]
)
def test_a_file_that_is_none_is_refused(content: bytes | None, said: str, tmp_path: Path) -> None:
    source = tmp_path / "site.sif"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(CorralError, match=said) as refused:
        locked_image("site", image(source, most_bytes=8), None)
    assert refused.value.where == "catalog/engines/site.toml: image"
