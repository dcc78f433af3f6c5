"""Requests of a load test, by the OpenAI client: one completion, streamed and timed."""

from __future__ import annotations

import contextlib
import importlib.util
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2 as httpx

from corral.bench.load.figures import Exchange
from corral.errors import CorralError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_CONNECT_SECONDS = 60
_IDLE_SECONDS = 1
# Text of a server in a message and in a result.
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server, or gateway, that gets the requests.

    + url: without the path of the API; + socket: file of a unix socket to it, or None
    + fields: more fields of a request, see ``Engine.load_fields``
    + trusted: certificates that it may show, as PEM; None: plain HTTP
    """

    url: str
    socket: str | None = None
    key: str = field(repr=False)
    alias: str
    fields: Mapping[str, Any]
    trusted: str | None = None


def refuse_missing() -> None:
    """Raise CorralError where the OpenAI client is not installed."""
    if importlib.util.find_spec("openai") is None:
        step = "install it with: pip install 'corral[load]'"
        raise CorralError("--load", "the OpenAI client is not installed", step)


def program() -> str:
    """The client and its version, for results."""
    import openai

    return f"openai {openai.__version__}"


@contextlib.asynccontextmanager
async def connected(target: Target, connections: int) -> AsyncIterator[AsyncOpenAI]:
    """A client that sends each request once: a retry would hide a failure."""
    from openai import AsyncOpenAI

    # A server closes idle connections after some seconds; a request on one of these would fail.
    limits = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=connections,
        keepalive_expiry=_IDLE_SECONDS,
    )
    # No proxy of the environment: it would be measured, and it would see the key.
    transport = httpx.AsyncHTTPTransport(
        uds=target.socket, limits=limits, trust_env=False, verify=_context(target.trusted)
    )
    # A request may wait in the server's queue until the time of its measurement is over.
    timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
    async with (
        httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False) as http,
        AsyncOpenAI(
            base_url=f"{target.url}/v1",
            api_key=target.key,
            max_retries=0,
            timeout=timeout,
            http_client=http,
        ) as client,
    ):
        yield client


def _context(trusted: str | None) -> ssl.SSLContext | bool:
    """Trust the certificates of the inventory and no other; they need not name the address."""
    if trusted is None:
        return True
    context = ssl.create_default_context(cadata=trusted)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


async def complete(
    client: AsyncOpenAI, target: Target, prompt: Sequence[int], output_tokens: int
) -> Exchange:
    """Send one request and follow its stream to the end; a failure is in the result."""
    from openai import OpenAIError

    found = Exchange(sent=time.perf_counter())
    try:
        found.error = await _follow(client, target, prompt, output_tokens, found)
    # The last three: a part of the stream that does not keep to the API.
    except (OpenAIError, httpx.HTTPError, ValueError, TypeError, AttributeError) as error:
        found.error = describe(error)
    return found


async def _follow(
    client: AsyncOpenAI,
    target: Target,
    prompt: Sequence[int],
    output_tokens: int,
    found: Exchange,
) -> str:
    """Returns why the answer is not whole, or an empty text."""
    # As an additional field: the client would look at each of thousands of tokens.
    fields = {**target.fields, "prompt": prompt}
    stream = await client.completions.create(
        model=target.alias,
        prompt=None,
        max_tokens=output_tokens,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=fields,
    )
    finished = counted = False
    async for part in stream:
        if part.usage:
            counted = True
            found.prompt_tokens = part.usage.prompt_tokens
            found.output_tokens = part.usage.completion_tokens
            details = part.usage.prompt_tokens_details
            found.cached_tokens = (details and details.cached_tokens) or 0
        if not part.choices:
            continue
        choice = part.choices[0]
        finished = finished or bool(choice.finish_reason)
        # The last part may have no token of its own; others without text have a special token.
        if choice.text or not choice.finish_reason:
            found.arrivals.append(time.perf_counter())
    if not finished:
        return "the stream was cut"
    if not found.arrivals:
        return "the answer has no token"
    return "" if counted else "the answer does not count its tokens"


def describe(error: Exception) -> str:
    """A failure in a line, without what differs between equal failures."""
    status = getattr(error, "status_code", None)
    if status is not None:
        return f"HTTP {status}: {_message(error)}"
    cause = error.__cause__ or error
    text = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
    return text[:_MOST_CHARACTERS]


def _message(error: Exception) -> str:
    """The server's own message, without the client's words around it."""
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or error)[:_MOST_CHARACTERS]


async def prove(target: Target, prompt: Sequence[int], *, where: str, next_step: str) -> float:
    """Prove that the server answers as a load test needs it; returns a round trip in seconds.

    One short completion, which also warms the server up. Raises CorralError.
    """
    from openai import OpenAIError

    async with connected(target, 1) as client:
        try:
            await client.models.list()
            began = time.perf_counter()
            models = await client.models.list()
            round_trip = time.perf_counter() - began
        except (OpenAIError, httpx.HTTPError) as error:
            what = f"does not answer ({describe(error)})"
            raise CorralError(where, what, next_step) from error
        served = [model.id for model in models.data]
        if target.alias not in served:
            what = f"another model answers there ({', '.join(served) or 'none'})"
            raise CorralError(where, what, next_step)
        first = await complete(client, target, prompt, 2)
    if first.error:
        what = f"the first completion failed ({first.error})"
        raise CorralError(where, what, next_step)
    return round_trip
