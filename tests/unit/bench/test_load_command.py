"""`corral bench --load`: options, the way to the server, the stored result, its table."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from corral.bench.load.session import Facts
from corral.engines import engine_module
from corral.engines.load import LoadCase, LoadCommand
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.plan.instance import Endpoint
from corral.remote.tunnel import Tunnel
from tests.unit.bench.test_load_figures import written
from tests.unit.cli import test_services as services
from tests.unit.cli.test_cli import SITE, Corral, Said, assert_one_message, corral
from tests.unit.streaming_server import KEY, StreamingServer, streaming

pytestmark = pytest.mark.slow

__all__ = ["corral"]

RUN = import_module("corral.bench.load.run")
ALIAS = "tiny-glm-moe"
GATEWAY = (
    'servers.append(("gw", {"gateway": {"aliases": {"tiny-glm-moe": {"port": 8000}}, %s'
    '"trusted_networks": ["10.0.0.0/8"]}}))\n'
)
SITE_PATH = "inventories/site.py"
Load = Callable[..., Said]


@dataclass
class Session:
    """A host that answers with facts, and runs programs that write ``figures``."""

    facts: Facts
    lasts: bool = True
    figures: dict[str, Any] = field(default_factory=written)
    ran: list[LoadCommand] = field(default_factory=list)

    def run(self, command: LoadCommand, *, limit_seconds: int) -> dict[str, Any]:
        assert limit_seconds == 3600
        self.ran.append(command)
        return self.figures


def facts(**changes: Any) -> Facts:
    given = {
        "began_at": "2026-11-29T20:00:00Z", "cpu": "EPYC", "gpus": [], "commit": "0c1e57",
        "in_flight": 0, "tokens": list(range(100, 164)), "url": "http://127.0.0.1:8001",
    }  # fmt: skip
    return Facts.model_validate({**given, **changes})


@dataclass
class Site:
    """The servers behind the command: ``asked``: documents; ``reached``: hosts and endpoints."""

    server: StreamingServer
    session: Session = field(default_factory=lambda: Session(facts()))
    asked: list[dict[str, Any]] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    refusal: str = ""
    tunnel_lasts: bool = True

    @contextlib.contextmanager
    def open(self, host: Host, spec: dict[str, Any], name: str) -> Iterator[Session]:
        assert spec["host"] == host.name
        self.asked.append(spec)
        if self.refusal:
            raise CorralError(name, self.refusal, "wait for it")
        yield self.session

    @contextlib.contextmanager
    def tunnel(self, host: Host, endpoint: Endpoint) -> Iterator[Tunnel]:
        self.reached.append(f"{host.name} {endpoint.url}")
        yield Tunnel(None, lambda: self.tunnel_lasts)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with streaming() as server:
        server.alias = ALIAS
        found = Site(server)
        monkeypatch.setattr(RUN, "session", found.open)
        monkeypatch.setattr(RUN, "tunnel", found.tunnel)
        monkeypatch.setattr(RUN, "tunnel_url", lambda *_: server.url)
        for name in ("stored_keys", "client_keys"):
            monkeypatch.setattr(RUN, name, lambda *_: type("Keys", (), {"first": KEY}))
        yield found


@pytest.fixture
def load(corral: Corral, site: Site, tmp_path: Path) -> Load:  # noqa: ARG001
    results = str(tmp_path / "results")
    return lambda *words: corral("bench", *words, "--load", "--results", results)


def test_a_load_test_is_kept_and_shown(load: Load, site: Site, tmp_path: Path) -> None:
    said = load("node-1/chat", "--workload", "20/5,10/4", "--prompts", "1,3", "--json")
    assert said.code == 0, said.err
    (found,) = json.loads(said.out)
    assert (found["test"], found["path"], found["program"][:7]) == ("load", "ssh", "openai ")
    assert (found["release"], found["commit"]) == (
        site.asked[0]["release"]["key"], "0c1e57",
    )  # fmt: skip
    runs = found["runs"]
    assert [
        (r["case"]["input_tokens"], r["completed"], r["total_output_tokens"]) for r in runs
    ] == [(20, 1, 5), (20, 3, 15), (10, 1, 4), (10, 3, 12)]
    assert found["round_trip_ms"] > 0
    kept = tmp_path / "results/node-1/chat/2026-11-29T200000Z.json"
    assert json.loads(kept.read_text()) == found
    assert site.reached == ["node-1 http://127.0.0.1:8001"]
    assert KEY not in kept.read_text() + said.out + said.err


def test_people_get_a_table(load: Load, site: Site) -> None:
    site.session.facts = facts(in_flight=3)
    said = load("node-1/chat", "--workload", "20/5", "--prompts", "2", "--request-rate", "50")
    assert said.code == 0, said.err
    assert "it serves 3 requests of others now" in said.err
    assert "the server had 3 requests of others when it began" in said.out
    assert "through ssh from the controller" in said.out
    assert "is part of each TTFT" in said.out
    rows = [line.split() for line in said.out.splitlines() if line.strip().startswith("20/5")]
    assert rows[0][:7] == ["20/5", "2", "2", "50", "2", "0", "0"]


def test_requests_that_fail_are_shown_and_the_exit_code_says_so(load: Load, site: Site) -> None:
    # The first request is the one before the measurement.
    site.server.plan = ["", "refuse", "cut"]
    said = load("node-1/chat", "--workload", "20/6", "--prompts", "3", "--concurrency", "1")
    assert said.code == 1
    assert "1 failed: HTTP 503: Loading model" in said.out
    assert "1 failed: RemoteProtocolError" in said.out


def test_one_that_ends_early_is_shown_too(load: Load, site: Site) -> None:
    site.server.plan = ["", "early"]
    said = load("node-1/chat", "--workload", "20/6", "--prompts", "3", "--json")
    assert said.code == 1
    assert json.loads(said.out)[0]["runs"][0]["ended_early"] == 1


def test_a_second_one_is_refused_by_the_host(load: Load, site: Site, tmp_path: Path) -> None:
    site.refusal = "a benchmark of long runs on this host"
    said = load("node-1/chat")
    assert_one_message(said, "node-1/chat: a benchmark of long runs on this host")
    assert site.server.requests == []
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("lost", ["session", "tunnel"])
def test_a_lost_connection_leaves_no_result(
    load: Load, site: Site, tmp_path: Path, lost: str
) -> None:
    site.session.lasts, site.tunnel_lasts = lost != "session", lost != "tunnel"
    said = load("node-1/chat", "--workload", "20/5")
    assert said.code == 1
    assert "connection lost during the load test, so its figures are useless" in said.err
    assert not (tmp_path / "results").exists()


def test_a_server_that_tells_no_tokens_is_refused(load: Load, site: Site) -> None:
    site.session.facts = facts(tokens=[])
    said = load("node-1/chat", "--workload", "20/5")
    assert said.code == 1
    assert "no prompt has an exact length" in said.err


def with_gateway(corral: Corral, server: StreamingServer, more: str = "") -> None:
    """The gateway's port is the server's."""
    port = server.url.rpartition(":")[2]
    text = (SITE + GATEWAY % more).replace("8000", port)
    text = text.replace('"port": 8001', '"address": "10.0.0.1", "port": 8001')
    (corral.root / SITE_PATH).write_text(text)


def test_through_a_gateway_its_own_port_and_key_are_used(
    load: Load, site: Site, corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gateway(corral, site.server)
    # It listens on loopback, as most do: only its own host reaches it.
    said = load("node-1/chat", "--workload", "20/5", "--prompts", "2", "--through", "gw", "--json")
    assert said.code == 1
    assert site.reached == [f"gw {site.server.url}"]
    monkeypatch.setattr(RUN, "_only_there", lambda _: False)
    said = load("node-1/chat", "--workload", "20/5", "--prompts", "2", "--through", "gw", "--json")
    assert said.code == 0, said.err
    (found,) = json.loads(said.out)
    assert (found["path"], found["through"], found["instance"]) == ("gateway", "gw", "chat")
    assert set(site.server.keys) == {KEY}


@pytest.mark.parametrize(
    ("instance", "through", "what"),
    [
        ("node-1/chat", "gw1", 'is no gateway of node-1\'s inventory (did you mean "gw"?)'),
        ("node-1/chat", "node-2", "is no gateway of node-1's inventory (known: gw)"),
        ("node-1/long", "gw", "gw: does not serve node-1/long"),
    ],
)
def test_a_gateway_in_front_of_others_is_refused(
    load: Load, site: Site, corral: Corral, instance: str, through: str, what: str
) -> None:
    with_gateway(corral, site.server)
    said = load(instance, "--workload", "20/5", "--through", through)
    assert said.code == 1
    assert what in said.err
    assert site.asked == []


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--workload", "8000/1000"), "node-1/chat: 8000/1000 needs 9000 tokens, and a slot has"),
        (("--workload", "many"), "--workload many: is not INPUT/OUTPUT in tokens"),
        (("--prompts", "0"), "--prompts 0: the limit is 10000"),
        (("--prompts", "ten"), "--prompts ten: is no whole number"),
        (("--prompts", ","), "--prompts ,: is no whole number"),
        (("--concurrency", "-1"), "--concurrency -1: is no whole number"),
        (("--request-rate", "fast"), "--request-rate fast: is no number"),
        (("--request-rate", "nan"), "--request-rate nan: the limit is 10000"),
        (("--drain", "--through", "gw"), "--through gw: sends a drained server nothing"),
        (("--stop",), "--stop: a load test needs the server"),
        (("--prompt-tokens", "5"), "are lengths of the engine's own benchmark"),
        (("--time-limit", "0"), "0 is not in the range"),
    ],
)
def test_mistakes_are_found_before_anything_is_sent(
    load: Load, site: Site, words: tuple[str, ...], what: str
) -> None:
    said = load("node-1/chat", *words)
    assert said.code != 0
    assert what in said.err
    assert site.asked == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("--workload", "8/8"), ("--prompts", "1"), ("--through", "gw"), ("--time-limit", "5")],
)
def test_options_of_load_tests_are_not_ignored(corral: Corral, option: str, value: str) -> None:
    said = corral("bench", "node-1/chat", option, value)
    assert_one_message(said, f"{option}: is an option of load tests\n  Next: add --load")


def test_an_engines_own_program_runs_on_the_host(
    load: Load, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    def command(case: LoadCase, *, programs: str, url: str, seed: int, **given: Any) -> LoadCommand:
        seeds.append(seed)
        assert given["alias"] == ALIAS
        arguments = ("--url", url, "--prompts", str(case.num_prompts))
        return LoadCommand(f"{programs}/python", "loads", arguments, "OPENAI_API_KEY", "r.json")

    monkeypatch.setattr(engine_module("llama.cpp"), "load_command", command, raising=False)
    said = load(
        "node-1/chat", "--workload", "20/3", "--prompts", "4", "--repetitions", "2", "--json"
    )
    assert said.code == 1
    (found,) = json.loads(said.out)
    assert (found["path"], found["round_trip_ms"], found["program"]) == ("host", None, "loads")
    assert found["command"][1:] == [
        "-m", "loads", "--url", "http://127.0.0.1:8001", "--prompts", "4",
    ]  # fmt: skip
    assert [run["ended_early"] for run in found["runs"]] == [1, 1]
    assert (len(site.session.ran), site.reached, site.server.requests) == (2, [], [])
    assert len(set(seeds)) == len(seeds)


def test_without_the_client_it_is_said_how_to_get_it(
    load: Load, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said = load("node-1/chat", "--workload", "20/5")
    assert_one_message(said, "install it with: pip install 'corral[load]'")
    assert site.asked == []


def test_load_tests_are_compared_drawn_and_listed(
    load: Load, site: Site, corral: Corral, tmp_path: Path
) -> None:
    for second in ("00", "01"):
        site.session.facts = facts(began_at=f"2026-11-29T20:00:{second}Z")
        said = load("node-1/chat", "--workload", "20/5", "--prompts", "1,2", "--repetitions", "2")
        assert said.code == 0, said.err
    kept = ("--results", str(tmp_path / "results"))
    older = str(tmp_path / "results/node-1/chat/2026-11-29T200000Z.json")
    picture = tmp_path / "load.svg"
    said = corral("bench", "compare", "node-1/chat", older, *kept, "--plot", str(picture))
    assert said.code == 0, said.err
    assert "median_ttft_ms" in said.out
    assert "20/5, 2 prompts, 2 at a time" in said.out
    assert "<svg" in picture.read_text()
    by_name = corral("bench", "compare", "node-1/chat", "node-1/chat", "--load", *kept, "--json")
    rows = json.loads(by_name.out)["rows"]
    assert {row["verdict"] for row in rows} == {"none"}
    assert len(rows) == 2 * 15
    assert "load" in corral("bench", "list", *kept).out
    without = corral("bench", "compare", "node-1/chat", "node-1/chat", *kept)
    assert_one_message(without, "node-1/chat: no results are kept")


def test_with_drain_its_gateways_send_it_nothing_meanwhile(
    load: Load, site: Site, corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = services.Site(corral, monkeypatch)
    opened = site.open

    @contextlib.contextmanager
    def open_drained(host: Host, spec: dict[str, Any], name: str) -> Iterator[Session]:
        behind.log.append(f"load {name}")
        with opened(host, spec, name) as session:
            yield session

    monkeypatch.setattr(RUN, "session", open_drained)
    said = load("node-1/chat", "--workload", "20/5", "--prompts", "1", "--drain")
    assert said.code == 0, said.err
    assert behind.log == [
        "drain node-1/chat at gw for 60 s", "load node-1/chat", "release node-1/chat at gw",
    ]  # fmt: skip
    behind.log.clear()
    site.refusal = "a benchmark runs"
    assert load("node-1/chat", "--workload", "20/5", "--drain").code == 1
    assert behind.log[-1] == "release node-1/chat at gw"
    behind.log.clear()
    site.refusal = ""
    assert load("node-1/chat", "--workload", "20/5", "--prompts", "1").code == 0
    assert behind.log == ["load node-1/chat"]


def test_the_last_server_of_an_alias_is_drained_by_force_alone(
    load: Load, site: Site, corral: Corral, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = services.Site(corral, monkeypatch, "node-2/chat")
    said = load("node-1/chat", "--workload", "20/5", "--drain")
    assert_one_message(said, "is the last server of small at gw")
    assert "`corral bench node-1/chat --load --drain --force`" in said.err
    assert (behind.log, site.asked) == ([], [])


def test_a_socket_that_the_login_does_not_reach_is_refused(
    load: Load, site: Site, corral: Corral
) -> None:
    socket = '{"name": "chat", "profile": "tiny-socket"}'
    data = f'{{"_sudo": True, "instances": [{socket}]}}'
    (corral.root / SITE_PATH).write_text(f'servers = [("node-1", {data})]\n')
    said = load("node-1/chat", "--workload", "20/5")
    assert_one_message(said, "node-1/chat: listens on a unix socket, which is open to root")
    assert site.asked == []


def test_a_server_that_does_not_answer_through_ssh_says_what_may_prevent_it(
    load: Load, site: Site
) -> None:
    site.server.alias = "another"
    said = load("node-1/chat", "--workload", "20/5")
    assert_one_message(said, "node-1/chat: another model answers there (another)")
    assert "`corral verify node-1/chat` shows whether it serves; if it does, sshd" in said.err
    assert "AllowTcpForwarding" in said.err
