"""Client of a hub for repositories and small files; each answer is validated before use."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from corral_shared.hub import HUGGING_FACE
from corral_shared.names import quoted_path
from corral_shared.text import printable_line
from httpx2 import Client, HTTPError, InvalidURL, Response
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
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

# The description of a repository with a thousand shards takes half a megabyte.
MOST_BYTES = 64 * 1024**2
MOST_SECONDS = 120
_TIMEOUT_SECONDS = 30
# Answers that pass: too many requests, and faults of the hub itself.
_TOO_MANY = 429
_LATER = frozenset({_TOO_MANY, 500, 502, 503, 504})
_MOST_DIGITS = 6
_TRUSTED = "choose a repository, a revision or a hub_url that can be trusted"
# Exceptions of the client for an answer of an unexpected shape.
_SHAPE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)


class _HubAnswer(Frozen):
    """Base of a part of an answer; keys that are not used here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class HubFile(_HubAnswer):
    """A file of a repository; ``lfs``: size and digest, validated with the lock."""

    rfilename: str
    lfs: dict[str, Any] | None = None


class HubRevision(_HubAnswer):
    """A repository at one commit."""

    sha: str = Field(pattern=r"^[0-9a-f]{40}$")
    siblings: tuple[HubFile, ...]


def describe(name: str, model: Model, hub_url: str) -> HubRevision:
    """The model's repository at its revision. Raises CorralError naming the catalog's file."""
    where = f"catalog/models/{name}.toml"
    try:
        response = _fetch_revision(model, hub_url)
        hf_raise_for_status(response)
    except LocalTokenNotFoundError as error:
        what = f"{model.repo} is gated, and there is no token for {HUGGING_FACE}"
        raise CorralError(f"{where}: gated", what, "set HF_TOKEN, or `hf auth login`") from error
    except GatedRepoError as error:
        what = f"{hub_url} allows only users with granted access to read {model.repo}"
        step = "set `gated = true` there and HF_TOKEN here, or name another repository"
        raise CorralError(f"{where}: repo", what, step) from error
    except RepositoryNotFoundError as error:
        what = f"{hub_url} has no repository {model.repo} (or it is private)"
        raise CorralError(f"{where}: repo", what, "fix the name") from error
    except RevisionNotFoundError as error:
        what = f"{model.repo} has no revision {model.revision}"
        raise CorralError(f"{where}: revision", what, "fix the revision") from error
    except HfHubHTTPError as error:
        raise CorralError(where, *_refused(hub_url, error.response)) from error
    except (HTTPError, InvalidURL, OSError) as error:
        what = f"{hub_url} does not answer: {printable_line(error) or type(error).__name__}"
        step = "check that the hub can be reached, then run `corral lock` again"
        raise CorralError(where, what, step) from error
    except _SHAPE as error:
        what = f"{hub_url} does not answer like a hub: {printable_line(error)[:200]}"
        raise CorralError(where, what, _TRUSTED) from error
    return _checked(model, hub_url, response, where)


def content(model: Model, hub_url: str, revision: str, path: str, *, where: str) -> bytes:
    """A small file of a repository at a commit. Raises CorralError; ``where`` names the caller."""
    shown = printable_line(path)
    url = f"{hub_url.rstrip('/')}/{model.repo}/resolve/{revision}/{quoted_path(path)}"
    try:
        response = _read(model, hub_url, url)
    except (HTTPError, InvalidURL, OSError, *_SHAPE) as error:
        what = f"{hub_url} does not serve {shown}: {printable_line(error) or type(error).__name__}"
        step = "check that the hub can be reached, then run `corral lock` again"
        raise CorralError(where, what, step) from error
    if response.status_code in _LATER:
        raise CorralError(where, *_refused(hub_url, response))
    if response.status_code != 200:
        what = f"{hub_url} answers {response.status_code} for {shown}"
        raise CorralError(where, what, "fix the pattern, or check who may read the repository")
    if not 0 < len(response.content) <= MOST_BYTES:
        what = f"{shown} is empty, or larger than {MOST_BYTES >> 20} MiB"
        raise CorralError(where, what, "name it in `files` if it holds weights, else exclude it")
    return response.content


def _refused(hub_url: str, response: Any) -> tuple[str, str]:
    """What a hub that answers with an error says, and the next step."""
    code, seconds = response.status_code, response.headers.get("Retry-After", "")
    if code not in _LATER:
        step = "check hub_url, and who may read the repository, then run `corral lock` again"
        return f"{hub_url} answers {code}", step
    known = seconds.isascii() and seconds.isdigit() and len(seconds) < _MOST_DIGITS
    wait = f"wait {seconds} seconds" if known else "wait some minutes"
    if code == _TOO_MANY:
        what = f"{hub_url} answers 429: it limits how often this machine, or this token, may ask"
        return what, f"{wait}, then run `corral lock` again; HF_TOKEN with a token raises the limit"
    return (
        f"{hub_url} answers {code}: it is busy or faulty",
        f"{wait}, then run `corral lock` again",
    )


def _fetch_revision(model: Model, hub_url: str) -> Response:
    revision = quote(model.revision, safe="")
    url = f"{hub_url.rstrip('/')}/api/models/{model.repo}/revision/{revision}?blobs=true"
    return _read(model, hub_url, url)


def _read(model: Model, hub_url: str, url: str) -> Response:
    """The response with at most MOST_BYTES + 1 bytes of its body."""
    headers: dict[str, str] = build_hf_headers(token=model.needs_token(hub_url))
    # A few compressed kilobytes can expand to gigabytes.
    headers["Accept-Encoding"] = "identity"
    with Client(timeout=_TIMEOUT_SECONDS) as client, answer(client, url, headers) as response:
        body = read_body(response, most_bytes=MOST_BYTES + 1, most_seconds=MOST_SECONDS)
        # Not X-HF-Warning: the client would log its text unescaped.
        kept = ("Content-Type", "X-Error-Code", "X-Error-Message", "Retry-After")
        shown = {key: response.headers[key] for key in kept if key in response.headers}
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ValueError("a compressed answer to a request for an uncompressed one")
        return Response(response.status_code, headers=shown, content=body, request=response.request)


def _checked(model: Model, hub_url: str, response: Response, where: str) -> HubRevision:
    body = response.content
    if len(body) > MOST_BYTES:
        what = f"{hub_url} describes {model.repo} in more than {MOST_BYTES >> 20} MiB"
        raise CorralError(where, what, _TRUSTED)
    if response.status_code != 200 or body.lstrip()[:1] == b"<":
        page = " with a web page, as the login page of a network does"
        what = f"{hub_url} answers {response.status_code}{page if body else ''}"
        step = "check that the hub can be reached from here, then run `corral lock` again"
        raise CorralError(where, what, step)
    revision = parse_json(HubRevision, body, where=f"{where}: the hub's answer", next_step=_TRUSTED)
    if is_commit(model.revision) and revision.sha != model.revision:
        what = f"{hub_url} answers with commit {revision.sha} instead of {model.revision}"
        raise CorralError(f"{where}: revision", what, _TRUSTED)
    return revision
