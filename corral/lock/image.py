"""Lock entries of images of a site's own: the sha256 of the file, and its size."""

from __future__ import annotations

from corral.catalog.image import Image
from corral.lock.lock_file import LockedEngine
from corral.sources.images import measured


def locked_image(name: str, image: Image, before: LockedEngine | None) -> LockedEngine:
    """The entry of an image; ``before``: kept while the catalog asks for the same, None to renew.

    Raises CorralError where its digest is unknown.
    """
    if before and before.requested == image.pinned and before.image_sha256:
        return before
    where = f"catalog/engines/{name}.toml: image"
    digest, size_bytes = image.sha256, None
    if digest is None:
        digest, size_bytes = measured(image.source, most_bytes=image.most_bytes, where=where)
    return LockedEngine(
        requested=image.pinned,
        commit=digest[:40],
        image_sha256=digest,
        image_bytes=size_bytes,
    )
