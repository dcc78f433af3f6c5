"""Ask a hub about a repository. Its answer is checked before anything is made of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from corral_shared.hub import HUGGING_FACE
from corral_shared.names import quoted_path
from corral_shared.text import printable_line
from httpx2 import Client, HTTPError, InvalidURL, Response
from huggingface_hub.errors import (
    GatedRepoError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
)
from pydantic import ConfigDict, Field

from corral.catalog.entries import Model
from corral.errors import CorralError
from corral.names import is_commit
from corral.schema import Frozen, parse_json
from corral.sources.hub_requests import answer, read_body

# A repository of a thousand shards is described in half a megabyte.
MOST_BYTES = 64 * 1024**2
MOST_SECONDS = 120
_TIMEOUT_SECONDS = 30
_TRUSTED = "choose a repository, a revision or a hub_url that can be trusted"
# What the client raises when it makes an error of an answer in a shape that it does not expect.
_SHAPE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)


class _Said(Frozen):
    """A part of the answer; a hub says more than is asked for here."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class HubFile(_Said):
    """A file of a repository; ``lfs`` tells size and digest, and is checked with the lock."""

    rfilename: str
    lfs: dict[str, Any] | None = None


class HubRevision(_Said):
    """A repository at one commit."""

    sha: str = Field(pattern=r"^[0-9a-f]{40}$")
    siblings: tuple[HubFile, ...]


def describe(name: str, model: Model, hub_url: str) -> HubRevision:
    """The model's repository at its revision. Raises CorralError naming the catalog's file."""
    where = f"catalog/models/{name}.toml"
    try:
        response = _ask(model, hub_url)
        hf_raise_for_status(response)
    except LocalTokenNotFoundError as error:
        what = f"{model.repo} is gated, and there is no token to ask {HUGGING_FACE} with"
        raise CorralError(f"{where}: gated", what, "set HF_TOKEN, or `hf auth login`") from error
    except GatedRepoError as error:
        what = f"{hub_url} lets only those who were let in read {model.repo}"
        step = "set `gated = true` there and HF_TOKEN here, or name another repository"
        raise CorralError(f"{where}: repo", what, step) from error
    except RepositoryNotFoundError as error:
        what = f"{hub_url} has no repository {model.repo} (or it is private)"
        raise CorralError(f"{where}: repo", what, "fix the name") from error
    except RevisionNotFoundError as error:
        what = f"{model.repo} has no revision {model.revision}"
        raise CorralError(f"{where}: revision", what, "fix the revision") from error
    except (HTTPError, InvalidURL, OSError) as error:
        what = f"{hub_url} does not answer: {printable_line(error) or type(error).__name__}"
        step = "see that the hub can be reached, run `corral lock` again"
        raise CorralError(where, what, step) from error
    except _SHAPE as error:
        what = f"{hub_url} answers what no hub does: {printable_line(error)[:200]}"
        raise CorralError(where, what, _TRUSTED) from error
    return _checked(model, hub_url, response, where)


def content(model: Model, hub_url: str, revision: str, path: str, *, where: str) -> bytes:
    """A small file of a repository at a commit. Raises CorralError; ``where`` names the caller."""
    shown = printable_line(path)
    url = f"{hub_url.rstrip('/')}/{model.repo}/resolve/{revision}/{quoted_path(path)}"
    try:
        response = _read(model, hub_url, url)
    except (HTTPError, InvalidURL, OSError, *_SHAPE) as error:
        what = f"{hub_url} does not give {shown}: {printable_line(error) or type(error).__name__}"
        step = "see that the hub can be reached, run `corral lock` again"
        raise CorralError(where, what, step) from error
    if response.status_code != 200:
        what = f"{hub_url} answers {response.status_code} for {shown}"
        raise CorralError(where, what, "correct the pattern, or see who may read the repository")
    if not 0 < len(response.content) <= MOST_BYTES:
        what = f"{shown} is empty, or larger than {MOST_BYTES >> 20} MiB"
        raise CorralError(where, what, "name it in `files` if it holds weights, else leave it out")
    return response.content


def _ask(model: Model, hub_url: str) -> Response:
    revision = quote(model.revision, safe="")
    url = f"{hub_url.rstrip('/')}/api/models/{model.repo}/revision/{revision}?blobs=true"
    return _read(model, hub_url, url)


def _read(model: Model, hub_url: str, url: str) -> Response:
    """The answer with as much of its body as is read at most, and a byte more."""
    headers: dict[str, str] = build_hf_headers(token=model.needs_token(hub_url))
    # Compressed, a few kilobytes become gigabytes.
    headers["Accept-Encoding"] = "identity"
    with Client(timeout=_TIMEOUT_SECONDS) as client, answer(client, url, headers) as response:
        body = read_body(response, most_bytes=MOST_BYTES + 1, most_seconds=MOST_SECONDS)
        # X-HF-Warning is not among them: the client would log it as it came.
        kept = ("Content-Type", "X-Error-Code", "X-Error-Message")
        shown = {key: response.headers[key] for key in kept if key in response.headers}
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ValueError("a compressed answer, where it was asked for a plain one")
        return Response(response.status_code, headers=shown, content=body, request=response.request)


def _checked(model: Model, hub_url: str, response: Response, where: str) -> HubRevision:
    body = response.content
    if len(body) > MOST_BYTES:
        what = f"{hub_url} describes {model.repo} in more than {MOST_BYTES >> 20} MiB"
        raise CorralError(where, what, _TRUSTED)
    if response.status_code != 200 or body.lstrip()[:1] == b"<":
        page = " with a page for people, as the login page of a network does"
        what = f"{hub_url} answers {response.status_code}{page if body else ''}"
        step = "see that the hub can be reached from here, run `corral lock` again"
        raise CorralError(where, what, step)
    revision = parse_json(HubRevision, body, where=f"{where}: the hub's answer", next_step=_TRUSTED)
    if is_commit(model.revision) and revision.sha != model.revision:
        what = f"{hub_url} answers {revision.sha} where it was asked for {model.revision}"
        raise CorralError(f"{where}: revision", what, _TRUSTED)
    return revision
