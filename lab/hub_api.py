"""Answers of the stand-in hub: the part of the Hub's protocol that clients use.

Written against huggingface_hub 2.4. Large files are redirected to a signed, expiring address of
another origin, as by the Hub; Xet headers are left out, as on a plain mirror.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from lab.hub_documents import entries, model_info
from lab.hub_store import DEFAULT_REVISION, NotFoundError, Snapshot, Store, StoredFile

_REPOSITORY = r"(?P<repository>[^/]+/[^/]+)"
_INFO = re.compile(rf"/api/models/{_REPOSITORY}(?:/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(rf"/api/models/{_REPOSITORY}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
_PATHS = re.compile(rf"/api/models/{_REPOSITORY}/paths-info/(?P<revision>[^/]+)")
_RESOLVE = re.compile(rf"/{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_SIGNED = re.compile(rf"/cdn/(?P<signature>[^/]+)/{_REPOSITORY}/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass(frozen=True)
class Request:
    """A request as the routes need it; `query` and `form` keep all values of a name.

    + authorization: the header, or ""
    """

    method: str
    path: str
    host: str
    query: Mapping[str, Sequence[str]]
    form: Mapping[str, Sequence[str]]
    authorization: str = ""

    def asks_for(self, flag: str) -> bool:
        return self.query.get(flag, ["false"])[-1].lower() in ("true", "1")


@dataclass(frozen=True)
class Answer:
    """Status, headers, and a JSON document, a file or a `body` in chunks.

    + commit: becomes X-Repo-Commit; + body: sent without a Content-Length
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    document: Any = None
    file: StoredFile | None = None
    commit: str | None = None
    linked_size_bytes: int | None = None
    body: Iterator[bytes] | None = None


def refusal(status: int, message: str, code: str | None = None) -> Answer:
    """An error as the Hub writes it: a JSON document, and a code for clients in a header."""
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Answer(status, headers, document={"error": message})


class Signer:
    """Makes signed addresses, which expire after `lifetime_seconds`."""

    def __init__(self, lifetime_seconds: int) -> None:
        self._secret = secrets.token_bytes(32)
        self._lifetime_seconds = lifetime_seconds

    def address(self, resource: str) -> str:
        """Path and query of a signed address for ``<org>/<name>/<commit>/<path>``."""
        expires = str(int(time.time()) + self._lifetime_seconds)
        return f"/cdn/{self._signature(resource, expires)}/{quote(resource)}?expires={expires}"

    def is_valid(self, resource: str, signature: str, expires: str) -> bool:
        good = hmac.compare_digest(signature, self._signature(resource, expires))
        return good and time.time() < int(expires)

    def _signature(self, resource: str, expires: str) -> str:
        message = f"{resource}?{expires}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


class HubRoutes:
    """The Hub itself: metadata, small files, and redirects to `storage_port` for large ones.

    + scheme: of the storage, http or https; + token: requests without it are refused
    """

    def __init__(
        self,
        store: Store,
        signer: Signer,
        storage_port: int,
        *,
        scheme: str = "http",
        token: str | None = None,
    ) -> None:
        self._store = store
        self._signer = signer
        self._storage_port = storage_port
        self._scheme = scheme
        self._token = token

    def answer(self, request: Request) -> Answer:
        if self._token and request.authorization != f"Bearer {self._token}":
            return refusal(401, "access to this repository is restricted", "GatedRepo")
        try:
            return self._route(request)
        except NotFoundError as error:
            return refusal(404, str(error), error.code)

    def _route(self, request: Request) -> Answer:
        if request.method == "POST":
            if found := _PATHS.fullmatch(request.path):
                return self._paths_info(self._snapshot(found), request)
        elif found := _INFO.fullmatch(request.path):
            snapshot = self._snapshot(found)
            document = model_info(snapshot, blobs=request.asks_for("blobs"))
            return Answer(200, document=document, commit=snapshot.commit)
        elif found := _TREE.fullmatch(request.path):
            return self._tree(self._snapshot(found), unquote(found["path"] or ""), request)
        elif found := _RESOLVE.fullmatch(request.path):
            return self._resolve(self._snapshot(found), unquote(found["path"]), request.host)
        return refusal(404, f"the hub has no {request.method} {request.path}")

    def _snapshot(self, found: re.Match[str]) -> Snapshot:
        revision = unquote(found["revision"] or DEFAULT_REVISION)
        return self._store.snapshot(unquote(found["repository"]), revision)

    def _paths_info(self, snapshot: Snapshot, request: Request) -> Answer:
        wanted = request.form.get("paths", [])
        document = [entry for entry in entries(snapshot) if entry["path"] in wanted]
        return Answer(200, document=document)

    def _tree(self, snapshot: Snapshot, folder: str, request: Request) -> Answer:
        prefix = f"{folder}/" if folder else ""
        below = [entry for entry in entries(snapshot) if entry["path"].startswith(prefix)]
        if not below:
            raise NotFoundError("EntryNotFound", f"{folder} does not exist")
        if not request.asks_for("recursive"):
            below = [entry for entry in below if "/" not in entry["path"].removeprefix(prefix)]
        return Answer(200, document=below)

    def _resolve(self, snapshot: Snapshot, path: str, host: str) -> Answer:
        file = snapshot.file(path)
        if not file.is_lfs:
            return Answer(200, {"ETag": file.etag}, file=file, commit=snapshot.commit)
        address = self._signer.address(f"{snapshot.repository}/{snapshot.commit}/{path}")
        location = f"{self._scheme}://{host.partition(':')[0]}:{self._storage_port}{address}"
        headers = {"Location": location, "ETag": file.etag, "X-Linked-Etag": file.etag}
        size_bytes = file.size_bytes
        return Answer(302, headers, commit=snapshot.commit, linked_size_bytes=size_bytes)


class StorageRoutes:
    """The storage behind the Hub: files at signed addresses, and nothing else."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer

    def answer(self, request: Request) -> Answer:
        found = _SIGNED.fullmatch(request.path)
        if not found:
            return refusal(404, f"the storage has no {request.path}")
        repository, commit, path = (
            unquote(found[key]) for key in ("repository", "revision", "path")
        )
        expires = request.query.get("expires", ["0"])[-1]
        if not self._signer.is_valid(f"{repository}/{commit}/{path}", found["signature"], expires):
            return refusal(403, "the signature does not fit this address, or it has expired")
        try:
            file = self._store.snapshot(repository, commit).file(path)
        except NotFoundError as error:
            return refusal(404, str(error))
        return Answer(200, {"ETag": file.etag}, file=file)
