"""A load test of one instance, from its plan to its result."""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from corral_shared.text import counted

from corral.bench.document import measured
from corral.bench.load import completions
from corral.bench.load.completions import Target
from corral.bench.load.figures import LoadRun
from corral.bench.load.generator import Measured, first_answer, measure
from corral.bench.load.result import LoadResult, Path, program_run
from corral.bench.load.session import Session, enough, session
from corral.bench.load.workload import refuse_longer
from corral.bench.result import instance_fields
from corral.engines import Engine, engine_module
from corral.engines.load import LoadCase, LoadCommand
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.plan.gateway import GatewayPlan, Pool, at
from corral.plan.host import HostPlan
from corral.plan.instance import Endpoint, InstancePlan
from corral.remote.root import as_root
from corral.remote.tunnel import tunnel, tunnel_url
from corral.store.api_keys import stored_keys
from corral.store.gateway_keys import certificate, client_keys

# A gateway's file has its private key, too.
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
COMPLETIONS = ("POST", "/v1/completions")

# Path -> what else may prevent an answer.
_FORWARDING: dict[Path, str] = {
    "host": "",
    "controller": "",
    "gateway": "; `corral gateway status`, whether its gateways reach it",
    "ssh": "; if it does, sshd there must allow forwarding (AllowTcpForwarding, "
    "AllowStreamLocalForwarding)",
}

PrintLine = Callable[[str], None]


@dataclass(frozen=True)
class Through:
    """A gateway that the requests of a load test pass; ``pool``: with the instance's alias."""

    host: Host
    plan: GatewayPlan
    pool: Pool


@dataclass(frozen=True)
class LoadTest:
    """One instance of a host, and the load for it.

    + plan: of the whole host, or what of it the host keeps; + limit_seconds: for each measurement
    """

    host: Host
    plan: HostPlan
    instance: InstancePlan
    cases: tuple[LoadCase, ...]
    repetitions: int
    limit_seconds: int
    through: Through | None = None

    @property
    def name(self) -> str:
        """HOST/INSTANCE, as arguments of `corral`."""
        return f"{self.host.name}/{self.instance.name}"

    @property
    def engine(self) -> Engine:
        """The engine of the instance."""
        return engine_module(self.instance.kind)

    def refuse(self) -> None:
        """Raise CorralError for what cannot be measured, before anything is sent."""
        routes = self.through.pool.open if self.through else self.engine.routes.open
        if COMPLETIONS not in routes:
            what = f"cannot be load tested: {self.instance.kind} serves no {COMPLETIONS[1]}"
            raise CorralError(
                self.name, what, f"`corral verify {self.host.name}` tells whether it serves"
            )
        refuse_longer(self.cases, self.instance.context_tokens_per_slot, where=self.name)
        if self.through or self.command(self.cases[0], "http://127.0.0.1") is None:
            completions.refuse_missing()
            self._refuse_closed_socket()

    def _refuse_closed_socket(self) -> None:
        """ssh(1) forwards as the user who logs in, and a server's socket is for root."""
        becomes_root = as_root(self.host.data, []) != []
        if self.instance.endpoint.socket and becomes_root and not self.through:
            what = (
                "listens on a unix socket, which is open to root, and ssh logs in as another user"
            )
            step = "give the instance a port, or log in as root"
            raise CorralError(self.name, what, step)

    def command(self, case: LoadCase, url: str) -> LoadCommand | None:
        """The engine's load generator for a measurement on the host, or None."""
        return self.engine.load_command(
            case,
            programs=f"{self.instance.release_folder}/bin",
            model=self.instance.model_path,
            alias=self.instance.alias,
            url=url,
            # Another seed each time: prompts of an earlier run may be in a cache.
            seed=secrets.randbelow(2**31),
        )

    def spec(self) -> dict[str, Any]:
        """Document of the helper's `load` (files/corral_host/bench/load.py)."""
        return {**measured(self.host, self.plan, self.instance), "commands": []}


class _Way(NamedTuple):
    """Where requests go, and from where; ``lasts``: whether the connection to it still exists."""

    target: Target
    path: Path
    through: str
    lasts: Callable[[], bool]


@dataclass(frozen=True)
class _Outcome:
    """Measurements, and how they were made; fields as of LoadResult."""

    runs: tuple[LoadRun, ...]
    path: Path
    program: str
    through: str = ""
    round_trip_ms: float | None = None
    command: tuple[str, ...] = ()
    client_load: float | None = None


def run(test: LoadTest, print_line: PrintLine) -> LoadResult:
    """Run a load test. Raises CorralError; then nothing of it stays on the host."""
    test.refuse()
    with session(test.host, test.spec(), test.name) as opened:
        _warn(opened, print_line)
        began = time.monotonic()
        found = _measured(test, opened, print_line)
        seconds = time.monotonic() - began
    facts = opened.facts
    return LoadResult(
        host=test.host.name,
        **instance_fields(test.instance),
        began_at=facts.began_at,
        seconds=round(seconds, 1),
        cpu=facts.cpu,
        gpus=facts.gpus,
        commit=facts.commit,
        repetitions=test.repetitions,
        in_flight=facts.in_flight,
        **vars(found),
    )


def _warn(opened: Session, print_line: PrintLine) -> None:
    if opened.facts.in_flight:
        print_line(
            f"it serves {counted(opened.facts.in_flight, 'request')} of others now: the "
            "figures are not its own, and they will feel the test"
        )


def _measured(test: LoadTest, opened: Session, print_line: PrintLine) -> _Outcome:
    if test.through is None and (command := test.command(test.cases[0], opened.facts.url)):
        return _by_program(test, opened, command, print_line)
    return _by_client(test, opened, print_line)


def _by_program(
    test: LoadTest, opened: Session, first: LoadCommand, print_line: PrintLine
) -> _Outcome:
    """By the engine's own load generator, on the host."""

    def one(case: LoadCase) -> LoadRun:
        command = test.command(case, opened.facts.url) or first
        found = opened.run(command, limit_seconds=test.limit_seconds)
        return program_run(case, found, where=test.name)

    runs = tuple(_all(test, one, print_line))
    return _Outcome(runs, path="host", program=first.module, command=first.shown)


def _by_client(test: LoadTest, opened: Session, print_line: PrintLine) -> _Outcome:
    """By the OpenAI client, on the controller."""
    tokens = enough(opened.facts.tokens, test.name)
    loads = [0.0]
    with _reached(test) as (target, path, through, lasts):
        step = f"`corral verify {test.name}` shows whether it serves{_FORWARDING[path]}"
        round_trip = first_answer(target, tokens, where=through or test.name, next_step=step)

        def one(case: LoadCase) -> LoadRun:
            found: Measured = measure(
                target, case, tokens, limit_seconds=test.limit_seconds, print_line=print_line
            )
            loads.append(found.client_load)
            if not (opened.lasts and lasts()):
                what = "connection lost during the load test, so its figures are useless"
                raise CorralError(test.host.name, what, "run the same command again")
            return found.run

        runs = tuple(_all(test, one, print_line))
    return _Outcome(
        runs,
        path=path,
        program=completions.program(),
        through=through,
        round_trip_ms=1000 * round_trip,
        client_load=max(loads),
    )


def _all(
    test: LoadTest, one: Callable[[LoadCase], LoadRun], print_line: PrintLine
) -> Iterator[LoadRun]:
    """All measurements, with a line for each; every case once before any is repeated."""
    cases = [case for _ in range(test.repetitions) for case in test.cases]
    for number, case in enumerate(cases, 1):
        rate = f" at {case.request_rate:g} a second" if case.request_rate != "inf" else ""
        print_line(
            f"{number} of {len(cases)}: {case.num_prompts} prompts of {case.input_tokens}/"
            f"{case.output_tokens} tokens, {case.concurrency} at a time{rate}"
        )
        yield one(case)


@contextmanager
def _reached(test: LoadTest) -> Iterator[_Way]:
    """Where the requests go."""
    if test.through:
        with _gateway(test, test.through) as way:
            yield way
        return
    endpoint = test.instance.endpoint
    with tunnel(test.host, endpoint) as opened:
        target = Target(
            url=tunnel_url(test.host, endpoint),
            socket=opened.socket,
            key=stored_keys(test.host, test.instance.name).first,
            alias=test.instance.alias,
            fields=test.engine.load_fields,
        )
        path: Path = "controller" if test.host.name == "@local" else "ssh"
        yield _Way(target, path, "", opened.lasts)


@contextmanager
def _gateway(test: LoadTest, through: Through) -> Iterator[_Way]:
    """The gateway's port for the alias; by ssh where it listens on loopback only."""
    address, port = through.plan.address, through.pool.port
    certificates = certificate(through.host)
    scheme = "https" if certificates else "http"
    found = Target(
        url=f"{scheme}://{at(address, port)}",
        key=client_keys(through.host, through.pool).first,
        alias=through.pool.alias,
        fields=test.engine.load_fields,
        trusted="\n".join(_CERTIFICATE.findall(certificates)) if certificates else None,
    )
    if through.host.name == "@local" or not _only_there(address):
        yield _Way(found, "gateway", through.host.name, lambda: True)
        return
    with tunnel(through.host, Endpoint(address=address, port=port)) as opened:
        target = replace(found, url=f"{scheme}://localhost", socket=opened.socket)
        yield _Way(target, "gateway", f"{through.host.name}, by ssh", opened.lasts)


def _only_there(address: str) -> bool:
    """Whether an address that a gateway listens on names no host."""
    found = ipaddress.ip_address(address)
    return found.is_loopback or found.is_unspecified
