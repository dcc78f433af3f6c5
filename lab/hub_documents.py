"""JSON documents with which the Hub describes a revision of a repository."""

from __future__ import annotations

import hashlib
from typing import Any

from lab.hub_store import Snapshot, StoredFile, lfs_pointer


def model_info(snapshot: Snapshot, *, blobs: bool) -> dict[str, object]:
    """A repository at one revision; with `blobs`, also sizes and digests of its files."""
    return {
        "id": snapshot.repository,
        "modelId": snapshot.repository,
        "sha": snapshot.commit,
        "private": False,
        "gated": False,
        "disabled": False,
        "tags": ["gguf"],
        "siblings": [_sibling(file, blobs=blobs) for file in snapshot.files],
    }


def _sibling(file: StoredFile, *, blobs: bool) -> dict[str, object]:
    sibling: dict[str, object] = {"rfilename": file.path}
    if blobs:
        sibling |= {"size": file.size_bytes, "blobId": file.git_blob_id}
    if blobs and file.is_lfs:
        sibling["lfs"] = _lfs(file, digest_key="sha256")
    return sibling


def _lfs(file: StoredFile, *, digest_key: str) -> dict[str, object]:
    pointer_size_bytes = len(lfs_pointer(file.sha256, file.size_bytes))
    sizes = {"size": file.size_bytes, "pointerSize": pointer_size_bytes}
    return {digest_key: file.sha256, **sizes}


def entries(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Every file and folder of a revision, as the tree and paths-info routes describe them."""
    found = [_file_entry(file) for file in snapshot.files]
    folders = {parent for file in snapshot.files for parent in _parents(file.path)}
    for folder in folders:
        digest = hashlib.sha1(f"{snapshot.commit}/{folder}".encode(), usedforsecurity=False)
        found.append({"type": "directory", "oid": digest.hexdigest(), "size": 0, "path": folder})
    return sorted(found, key=lambda entry: str(entry["path"]))


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _file_entry(file: StoredFile) -> dict[str, Any]:
    size_bytes, blob_id = file.size_bytes, file.git_blob_id
    entry = {"type": "file", "oid": blob_id, "size": size_bytes, "path": file.path}
    return entry | ({"lfs": _lfs(file, digest_key="oid")} if file.is_lfs else {})
