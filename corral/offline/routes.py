"""What an address of a served bundle means: a file of the manifest, or a page made of it.

Nothing but names of manifests is served, so that no address leads out of a bundle.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from corral_shared.requirements import normalized
from corral_shared.text import printable_line

from corral.offline.manifest import BundleFile
from corral.offline.verify import Opened, Proved

_REVISION = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_SIMPLE = re.compile(r"/simple/(?P<name>[^/]+)/?")
_PLAIN = ("apt/", "images/", "sources/", "wheels/")


@dataclass(frozen=True)
class Served:
    """A file of a bundle as it was proved."""

    bundle: Opened
    file: BundleFile
    proved: Proved

    @property
    def changed(self) -> bool:
        """Whether it is not as it was when it was proved."""
        return self.bundle.stamp(self.file.name) != self.proved.stamps.get(self.file.name)


@dataclass(frozen=True)
class Answer:
    """An answer before its body; ``text``: of a page, ``served``: a file."""

    status: int
    text: bytes = b""
    content_type: str = "application/octet-stream"
    served: Served | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Routes:
    """Files of one or several bundles; the last that has a name counts."""

    def __init__(self, bundles: Sequence[tuple[Opened, Proved]]) -> None:
        self._files: dict[str, Served] = {}
        self._absent: dict[str, str] = {}
        for opened, proved in bundles:
            self._files |= {file.name: Served(opened, file, proved) for file in opened.bundle.files}
            since = opened.bundle.since
            for file in opened.bundle.elsewhere:
                self._absent[file.name] = since.at if since else "an earlier time"

    def answer(self, target: str) -> Answer:
        """The answer to GET and HEAD of a request's target."""
        path = urlsplit(target).path
        if found := _REVISION.fullmatch(path):
            return self._revision(unquote(found["repo"]), unquote(found["revision"]))
        if found := _RESOLVE.fullmatch(path):
            revision = unquote(found["revision"])
            name = f"weights/{unquote(found['repo'])}/{revision}/{unquote(found['path'])}"
            return self._file(name, {"X-Repo-Commit": revision})
        if found := _SIMPLE.fullmatch(path):
            return self._simple(normalized(unquote(found["name"])))
        name = _plain(unquote(path))
        if name.startswith(_PLAIN):
            return self._file(name, {})
        return _refusal(404, "this bundle has nothing there")

    def _file(self, name: str, headers: dict[str, str]) -> Answer:
        served = self._files.get(name)
        if served is None:
            if at := self._absent.get(name):
                step = f"serve the bundle of {at} together with this one"
                return _refusal(404, f"{name} is in an earlier bundle: {step}")
            return _refusal(404, f"the bundle has no {name}")
        if served.changed:
            return _refusal(409, f"{name} changed since it was proved: `corral bundle verify`")
        tags = {"ETag": f'"{served.file.sha256}"', "X-Linked-ETag": f'"{served.file.sha256}"',
                "X-Linked-Size": str(served.file.size_bytes)}  # fmt: skip
        return Answer(200, served=served, headers={**tags, **headers})

    def _revision(self, repo: str, revision: str) -> Answer:
        prefix = f"weights/{repo}/"
        names = sorted(name for name in self._files if name.startswith(prefix))
        commits = {name.removeprefix(prefix).partition("/")[0] for name in names}
        if revision not in commits:
            code = "RevisionNotFound" if commits else "RepoNotFound"
            return _refusal(404, f"the bundle has no {repo} at {revision}", code)
        siblings = [
            {
                "rfilename": name.removeprefix(f"{prefix}{revision}/"),
                "size": self._files[name].file.size_bytes,
                "lfs": {
                    "sha256": self._files[name].file.sha256,
                    "size": self._files[name].file.size_bytes,
                    "pointerSize": 0,
                },
            }
            for name in names
            if name.startswith(f"{prefix}{revision}/")
        ]
        document = {"id": repo, "sha": revision, "siblings": siblings}
        return Answer(200, json.dumps(document).encode(), "application/json")

    def _simple(self, name: str) -> Answer:
        """A page of a simple index (PEP 503), with digests."""
        rows = []
        for known, served in sorted(self._files.items()):
            folder, _, file = known.partition("/")
            if folder != "wheels" or normalized(file.split("-")[0]) != name:
                continue
            address = f"/wheels/{quote(file)}#sha256={served.file.sha256}"
            rows.append(f'<a href="{html.escape(address)}">{html.escape(file)}</a><br>')
        if not rows:
            return _refusal(404, f"the bundle has no wheel of {name}")
        page = f"<!DOCTYPE html><html><body>{''.join(rows)}</body></html>"
        return Answer(200, page.encode(), "text/html")


def _plain(path: str) -> str:
    """A path without parts that mean nothing: apt asks for ``PLATFORM/./InRelease``."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _refusal(status: int, why: str, code: str = "EntryNotFound") -> Answer:
    text = printable_line(why)
    headers = {"X-Error-Message": text.encode("ascii", "replace").decode(), "X-Error-Code": code}
    return Answer(status, f"{text}\n".encode(), "text/plain; charset=utf-8", headers=headers)
