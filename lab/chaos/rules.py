"""The rule of the hard day: each host serves its old or its new generation, whole, and says so.

It is checked by plain commands and a separate client, not through Corral: a mistake of Corral could
otherwise hide itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from corral.store.api_keys import keys_in
from lab.chaos.fleet import ALIAS, FOLDER, UNIT, Fleet
from lab.chaos.operators import By, Done
from lab.layout import GATEWAY

_FILES = Path(__file__).parent / "files"
_LOOK, _LOOK_GATEWAY = _FILES / "look.py", _FILES / "look_gateway.py"
# The reservation of served ports, which stays between changes.
_RESERVES, _RESERVED = "served-by-corral.service", "served_by_corral"
# What writes figures on the hosts of a watched fleet.
_MONITORING = ("corral_metrics.", "corral_daily.")
_PROMPT = "Say hello."
_REPLY_TOKENS, _LONG_REPLY_TOKENS = 24, 1000
_ANSWER_SECONDS = 15

CONVERGED, REVERTED, MIXED = 0, 10, 20


@dataclass(frozen=True)
class Generation:
    """A generation that a server may serve: id, command line, reply to the golden prompt.

    + reply: None if it was never seen to serve; then every reply is wrong
    """

    id: str
    argv: tuple[str, ...]
    reply: str | None


@dataclass(frozen=True)
class Found:
    """What a server serves ("old", "new" or None), and what is wrong about it."""

    serves: str | None
    wrong: tuple[str, ...]


def planned(fleet: Fleet, n: int, *, serves: bool) -> Generation:
    """The planned generation of server n; with its reply if it serves now."""
    plan = fleet.plan(n)["instances"][0]
    reply = ask(fleet, n) if serves else None
    return Generation(plan["generation"], tuple(plan["argv"]), reply)


def look(fleet: Fleet, n: int, known: Mapping[str, Generation]) -> Found:
    """Inspect server n. ``known``: "old" and "new" -> generation."""
    answer = fleet.try_on(n, f"python3 - {UNIT} {FOLDER} <<'END'\n{_LOOK.read_text()}\nEND")
    if answer is None:
        return Found(None, ("cannot be reached",))
    seen = json.loads(answer)
    serves = next((name for name, g in known.items() if g.id == seen["generation"]), None)
    if serves is None:
        return Found(None, (f"its unit is of generation {seen['generation']}",))
    wrong = [*_of_server(fleet, n, seen, known[serves]), *_left(seen), *_of_report(seen)]
    return Found(serves, tuple(wrong))


def _of_server(fleet: Fleet, n: int, seen: dict[str, Any], generation: Generation) -> list[str]:
    wrong = []
    if tuple(seen["argv"]) != generation.argv:
        wrong.append(f"its process is {' '.join(seen['argv']) or 'not there'}")
    try:
        reply = ask(fleet, n)
    except (URLError, OSError, ValueError, KeyError) as error:
        return [*wrong, f"does not answer: {error}"]
    if reply != generation.reply:
        wrong.append(f"answers {reply!r}, not {generation.reply!r}")
    return wrong


def _left(seen: dict[str, Any]) -> list[str]:
    """Leftovers that must not exist once a change has ended."""
    wrong = [f"unit {unit} is left" for unit in seen["units"] if unit != UNIT]
    files = [name for name in seen["files"] if name not in (UNIT, _RESERVES)]
    files = [name for name in files if not name.startswith(_MONITORING)]
    wrong += [f"file {name} is left among the units" for name in files]
    wrong += [f"{table} is left" for table in seen["tables"] if _RESERVED not in table]
    if seen["unfinished"]:
        wrong.append("activating.json is left")
    if seen["servers"] != 1:
        wrong.append(f"{seen['servers']} llama-server run")
    return wrong


def _of_report(seen: dict[str, Any]) -> list[str]:
    report = seen["report"]
    if report is None:
        return ["it has no history"]
    if report["serving"] == seen["generation"]:
        return []
    return [f"its report says that {report['serving']} serves"]


def of_gateway(fleet: Fleet, *, patience_seconds: float) -> list[str]:
    """Servers to which the gateway sends no requests, after its checks had time to find them."""
    deadline = time.monotonic() + patience_seconds
    while True:
        answer = fleet.try_on(GATEWAY, f"python3 - <<'END'\n{_LOOK_GATEWAY.read_text()}\nEND")
        if answer is None:
            return ["the gateway does not answer"]
        states: dict[str, str] = json.loads(answer)
        wrong = [f"{name} is {state} at the gateway" for name, state in states.items()
                 if not state.startswith("UP")]  # fmt: skip
        wrong += [] if len(states) == len(fleet.numbers) else [f"the gateway has {states}"]
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(0.5)


def of_exit(done: Done, found: Sequence[Found], by: By) -> list[str]:
    """What is wrong about an exit code, given what the hosts serve. None: a killed controller."""
    serving = {str(one.serves) for one in found}
    if done.code is None:
        return []
    converged, reverted = serving == {"new"}, serving == {"old"}
    right = CONVERGED if converged else REVERTED if reverted else MIXED
    if by == "deploy":
        right = min(right, 1)
    if done.code != right:
        return [f"exit code {done.code} while the hosts serve {' and '.join(sorted(serving))}"]
    return []


def load_seconds(fleet: Fleet, n: int) -> float:
    """Seconds from a plain start of server n until its /health succeeds, measured on its host."""
    started = f"systemctl stop {UNIT} && date +%s.%N && systemctl start {UNIT}"
    healthy = f"curl --silent --fail --output /dev/null {fleet.url(n)}/health"
    times = fleet.on(n, f"{started} && until {healthy}; do sleep 0.01; done; date +%s.%N")
    began, ended = map(float, times.split())
    return ended - began


def ask(fleet: Fleet, n: int) -> str:
    """The reply of server n to a prompt at temperature 0. Raises URLError, OSError, ValueError."""
    reply: str = _complete(fleet, n, _REPLY_TOKENS)["choices"][0]["message"]["content"]
    return reply


def tokens_per_second(fleet: Fleet, n: int) -> float:
    """Tokens/s of a long reply of server n, measured by a client. Raises as `ask` does."""
    began = time.monotonic()
    _complete(fleet, n, _LONG_REPLY_TOKENS)
    return _LONG_REPLY_TOKENS / (time.monotonic() - began)


def _complete(fleet: Fleet, n: int, tokens: int) -> Any:
    (key, *_) = keys_in(fleet.key_file(n).read_text())
    body = {
        "model": ALIAS,
        "messages": [{"role": "user", "content": _PROMPT}],
        "max_tokens": tokens,
        "temperature": 0,
        "cache_prompt": False,
    }
    request = Request(  # noqa: S310 - the lab's own
        f"{fleet.url(n)}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - the lab's own
        return json.load(answer)
