"""A gateway in front of three servers: real HAProxy, real completions."""

from __future__ import annotations

import json
import re
import shlex
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from openai import OpenAI

from corral.monitoring.dashboards import DASHBOARDS
from corral.paths import HOST_PATHS, HostPaths
from lab.layout import GATEWAY
from lab.rude_client import METHODS, NOT_HTTP, SMUGGLED, RudeClient, odd_keys, odd_paths
from tests.lab.observed import MODELS
from tests.lab.streams import streams
from tests.lab.test_endpoint import one_more_key
from tests.lab.test_monitoring import Watched
from tests.lab.test_rehash import ROT
from tests.lab.test_rollout import journal, rollout
from tests.lab.test_secrets import JOURNAL, watched
from tests.lab.untouched import said
from tests.lab.waiting import job_log, wait_for, wait_for_end
from tests.lab.workspace import Workspace

ALIAS = "tiny-glm-moe"
GW = f"lab-{GATEWAY}"
LAB = ("-i", "inventories/lab.py")
SERVERS = ("lab-1/tiny-chat", "lab-2/tiny-f16", "lab-3/tiny-gpu")
INVENTORY, PORT = "inventories/lab.py", '{"port": 8000}'
GATEWAY_PLACE = '"gateway": {"address"'
CURRENT = "readlink /etc/corral/gateway/current"
# Files that users other than root and HAProxy could read, or users other than root could write.
OPEN_FILES = (
    "find /etc/corral/gateway -not -type l"
    r" \( -perm /027 -o -not -user root -o -not -group haproxy \)"
)
# The end of a lease is waited for.
TRAFFIC = "corral/rollout/traffic.py"
LEASES = ("LEASE_SECONDS = 60\n_RENEW_SECONDS = 15", "LEASE_SECONDS = 20\n_RENEW_SECONDS = 5")
RELOADS = "journalctl --unit=haproxy --output=cat --no-pager | grep -c 'Loading success'"


@pytest.fixture(scope="module")
def lab(with_gateway: Workspace) -> Workspace:
    return with_gateway


@pytest.fixture(autouse=True)
def everybody_serves(lab: Workspace) -> Iterator[None]:
    """Start and make ready what a test stopped or drained."""
    yield
    if all_are_up(lab):
        return
    for server in set(SERVERS) - serving(lab):
        host, _, name = server.partition("/")
        lab.on(host, f"systemctl reset-failed corral-{name}; systemctl start corral-{name}")
        assert corral(lab, "ready", server) == 0


def deploy(lab: Workspace, *arguments: str) -> str:
    done = lab.deploy(*arguments)
    assert done.returncode == 0, said(done)
    return said(done)


def corral(lab: Workspace, *arguments: str) -> int:
    return lab.corral("gateway", *arguments, *LAB).returncode


def key(lab: Workspace, host: str = GW, name: str = f"gateway-{ALIAS}") -> str:
    lines = (lab.layout.keys / host / name).read_text().splitlines()
    return next(line for line in lines if not line.startswith("#"))


def client(lab: Workspace, shown: str | None = None) -> OpenAI:
    address = f"http://{lab.layout.address(GATEWAY)}:8000/v1"
    return OpenAI(base_url=address, api_key=shown or key(lab), max_retries=0, timeout=60)


def rude(lab: Workspace) -> RudeClient:
    return RudeClient(str(lab.layout.address(GATEWAY)), 8000, key(lab), patience_seconds=3)


def complete(asking: OpenAI) -> str | None:
    answer = asking.chat.completions.create(
        model=ALIAS, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
    )
    return answer.choices[0].message.content


def servers(lab: Workspace) -> dict[str, dict[str, object]]:
    status = json.loads(lab.corral("gateway", "status", "--json", *LAB).stdout)
    return {row["server"].replace("_", "/"): row for row in status[GW]}


def serving(lab: Workspace) -> set[str]:
    return {n for n, row in servers(lab).items() if row["up"] and row["admin"] == "ready"}


def test_a_key_of_its_own_opens_it_and_no_other_does(lab: Workspace) -> None:
    assert complete(client(lab))
    assert [model.id for model in client(lab).models.list()] == [ALIAS]
    others = [key(lab, "lab-1", "tiny-chat"), key(lab, GW, f"upstream-{ALIAS}"), "x" * 40]
    for other in (*others, f"{key(lab)}x", f"{key(lab)} x"):
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
            complete(client(lab, other))
    direct = OpenAI(
        base_url=f"http://{lab.layout.address(1)}:8001/v1", api_key=key(lab), max_retries=0
    )
    with pytest.raises(openai.AuthenticationError):
        direct.models.list()


def test_requests_are_counted_by_status_and_time_for_monitoring(lab: Workspace) -> None:
    """As the timer of a monitored host counts them, from HAProxy's log; each is counted once."""
    document = json.dumps({"paths": HOST_PATHS.model_dump(), "textfile": "/run/corral.prom"})
    count = f"printf %s {shlex.quote(document)} | python3 -I {HOST_PATHS.helper} metrics >/dev/null"

    def counted() -> dict[str, float]:
        lines = lab.on(GW, f"{count} && sed -n /^corral_gateway_/p /run/corral.prom").splitlines()
        return {name: float(figure) for name, _, figure in (line.rpartition(" ") for line in lines)}

    before = counted()
    for _ in range(3):
        assert complete(client(lab))
    with pytest.raises(openai.AuthenticationError):
        complete(client(lab, "a-key-that-nobody-has-here"))
    labels = f'{{proxy="{ALIAS}"}}'
    wanted = {
        f'corral_gateway_requests_total{{proxy="{ALIAS}",code="200"}}': 3,
        f'corral_gateway_requests_total{{proxy="{ALIAS}",code="401"}}': 1,
        f"corral_gateway_first_byte_seconds_count{labels}": 3,
        f"corral_gateway_request_seconds_count{labels}": 3,
    }

    def grown() -> dict[str, float]:
        now = counted()
        return {name: now.get(name, 0) - before.get(name, 0) for name in wanted}

    # The line of a request is written after its answer.
    wait_for(lambda: grown() == wanted, "all are counted")
    assert grown() == wanted
    sums = counted()
    first = sums[f"corral_gateway_first_byte_seconds_sum{labels}"]
    whole = sums[f"corral_gateway_request_seconds_sum{labels}"]
    assert 0 < first <= whole
    kinds = {line.split()[2] for line in metrics(lab).splitlines() if line.startswith("# TYPE")}
    asked = {
        name
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries.values()
        for name in re.findall(r"haproxy_\w+", query)
    }
    assert asked - kinds == set()


def test_every_query_of_its_dashboard_answers_under_load(lab: Workspace) -> None:
    queries = {
        f"{panel.title}: {legend}": query.replace("$__rate_interval", "1m").replace("$host", GW)
        for dashboard in DASHBOARDS
        if dashboard.name == "corral-gateway"
        for panel in dashboard.panels
        for legend, query in panel.queries.items()
    }
    watched_too = f'"monitoring": {{"prometheus": {{}}}}, {GATEWAY_PLACE}'
    with lab.edited(INVENTORY, GATEWAY_PLACE, watched_too):
        deploy(lab, "--limit", GW)
        host = Watched(lab, GATEWAY)

        def empty() -> set[str]:
            complete(client(lab))
            host.look_now()
            found = dict(zip(queries, host.prometheus.answers(*queries.values()), strict=True))
            return {
                name
                for name, series in found.items()
                if all(one["value"][1] == "NaN" for one in series)
            }

        wait_for(lambda: not empty(), "all panels have figures")
    deploy(lab, "--limit", GW)


def test_clients_reach_the_api_alone_and_metrics_have_a_key(lab: Workspace) -> None:
    base, shown = f"http://{lab.layout.address(GATEWAY)}", {"Authorization": f"Bearer {key(lab)}"}
    for route in ("/slots", "/props", "/metrics", "/health", "/"):
        assert httpx.get(f"{base}:8000{route}", headers=shown).status_code == 404
        assert httpx.get(f"{base}:8000{route}").status_code == 401
    assert httpx.get(f"{base}:8404/metrics").status_code == 401
    assert httpx.get(f"{base}:8404/metrics", headers=shown).status_code == 401, "a client's key"
    reader = {"Authorization": f"Bearer {key(lab, name='gateway_metrics')}"}
    metrics = httpx.get(f"{base}:8404/metrics", headers=reader)
    assert f'haproxy_server_status{{proxy="{ALIAS}",server="lab-1_tiny-chat"' in metrics.text


def test_an_open_route_is_open_as_it_is_written_and_no_other_way(lab: Workspace) -> None:
    one = rude(lab)
    assert one.get("/v1/models?beta=true") == ["HTTP/1.1 200 OK"]
    assert one.get(f"http://{one.address}/v1/models") == ["HTTP/1.1 200 OK"]
    assert one.get("http://elsewhere/v1/models") == ["HTTP/1.1 400 Bad request"]
    before = requests_of_servers(lab)
    for path in odd_paths("/v1/models"):
        assert one.get(path)[0].split()[1] in ("400", "404"), path
    assert one.get("/v1/models", method="POST") == ["HTTP/1.1 404 Not Found"]
    assert one.get("/v1/chat/completions") == ["HTTP/1.1 404 Not Found"]
    assert requests_of_servers(lab) == before


@pytest.mark.parametrize("path", ["/slots", "/v1/slots", "/props", "/v1/stream", "/v1/health"])
def test_a_closed_route_is_closed_however_it_is_written(lab: Workspace, path: str) -> None:
    one, before = rude(lab), requests_of_servers(lab)
    for written in (path, f"http://{one.address}{path}", *odd_paths(path)):
        assert one.get(written) in (["HTTP/1.1 404 Not Found"], ["HTTP/1.1 400 Bad request"])
    assert requests_of_servers(lab) == before


def test_other_methods_and_other_protocols_reach_no_server(lab: Workspace) -> None:
    one, before = rude(lab), requests_of_servers(lab)
    for method in METHODS:
        answers = one.get("/v1/models", method=method)
        assert answers in (["HTTP/1.1 404 Not Found"], ["HTTP/1.1 400 Bad request"]), method
    for raw in NOT_HTTP:
        assert not [line for line in one.send(raw) if line.split()[1] not in ("400", "401")], raw
    assert requests_of_servers(lab) == before


def test_nothing_but_the_whole_key_opens_it(lab: Workspace) -> None:
    one, before = rude(lab), requests_of_servers(lab)
    for value in odd_keys(one.key):
        assert one.authorized_by(value) == ["HTTP/1.1 401 Unauthorized"], value
    assert requests_of_servers(lab) == before


def test_verify_finds_a_route_that_is_open_and_should_not_be(lab: Workspace) -> None:
    opened = "sed -i 's,{ path /v1/models },{ path /v1/models /v1/stream },' {file}"
    file = "/etc/corral/gateway/current/haproxy.cfg"
    try:
        lab.on(GW, f"{opened.replace('{file}', file)}; systemctl reload haproxy")
        assert "clients reach GET /v1/stream" in lab.corral("verify", GW, "--json", *LAB).stdout
    finally:
        deploy(lab, "--limit", GW)
    assert lab.corral("verify", GW, *LAB).returncode == 0


@contextmanager
def second_client(lab: Workspace) -> Iterator[str]:
    """Add another client's key of the same alias until the block ends."""
    path, new = lab.layout.keys / GW / f"gateway-{ALIAS}", f"second-{ssl.RAND_bytes(16).hex()}"
    before = path.read_text()
    path.write_text(f"{before}{new}\n")
    try:
        deploy(lab, "--limit", GW)
        yield new
    finally:
        path.write_text(before)
        deploy(lab, "--limit", GW)


def test_a_client_neither_reads_nor_ends_the_stream_of_another_one(lab: Workspace) -> None:
    base, name = f"http://{lab.layout.address(GATEWAY)}:8000", ssl.RAND_bytes(8).hex()
    named = {"X-Conversation-Id": name}
    with second_client(lab) as other:
        shown = {"Authorization": f"Bearer {other}", **named}
        stream = client(lab).chat.completions.create(
            model=ALIAS, messages=[{"role": "user", "content": "Count."}], max_tokens=64,
            stream=True, extra_headers=named,
        )  # fmt: skip
        pieces = [next(stream)]
        where = f"{base}/v1/stream?conv_id={name}"
        assert httpx.get(where, headers=shown).status_code == 404
        assert httpx.delete(where, headers=shown).status_code == 404
        asked = httpx.post(f"{base}/v1/streams/lookup", headers=shown, json={"ids": [name]})
        assert asked.status_code == 404
        assert [kept(lab, server, name) for server in SERVERS] == [404] * 3
        # With the same id the server would end the first client's stream.
        asking = client(lab, other).with_options(default_headers=named)
        assert all(complete(asking) for _ in SERVERS)
        pieces += stream
        assert pieces[-1].choices[0].finish_reason in ("stop", "length")
        assert sum(1 for piece in pieces if piece.choices) > 2


def kept(lab: Workspace, server: str, name: str) -> int:
    """A server's own answer to a request for a stream by its name."""
    host, _, instance = server.partition("/")
    port = lab.on(host, f"systemctl cat corral-{instance} | grep -oP -m1 '(?<=--port )[0-9]+'")
    address = f"http://{lab.layout.address(int(host.partition('-')[2]))}:{port}"
    shown = {"Authorization": f"Bearer {key(lab, host, instance)}"}
    return httpx.get(f"{address}/v1/stream?conv_id={name}", headers=shown).status_code


def metrics(lab: Workspace) -> str:
    """HAProxy's own metrics."""
    reader = {"Authorization": f"Bearer {key(lab, name='gateway_metrics')}"}
    return httpx.get(f"http://{lab.layout.address(GATEWAY)}:8404/metrics", headers=reader).text


def up(lab: Workspace) -> set[str]:
    """Servers to which HAProxy sends requests, by its own metrics: not those down or drained."""
    try:
        printed = metrics(lab)
    except httpx.HTTPError:
        return set()
    return {n for n in SERVERS if f'server="{n.replace("/", "_")}",state="UP"}} 1' in printed}


def all_are_up(lab: Workspace) -> bool:
    """Whether HAProxy sends requests to every server."""
    return up(lab) == set(SERVERS)


def wait_until_serving(lab: Workspace, wanted: set[str], what: str) -> None:
    """Wait until these servers serve: by HAProxy's metrics, which cost little, then by Corral."""
    wait_for(lambda: up(lab) == wanted, what)
    wait_for(lambda: serving(lab) == wanted, what)


def requests_of_servers(lab: Workspace) -> float:
    """How many requests the gateway passed on since it was started or reloaded."""
    pattern = r"^haproxy_server_sessions_total\{.*\} (\S+)$"
    found = re.findall(pattern, metrics(lab), re.MULTILINE)
    assert len(found) == len(SERVERS)
    return sum(map(float, found))


# HAProxy parses these in the only way that the standard allows, and writes its own request, so no
# server gets the fold, the bare line feed or the second length.
READ_ONE_WAY = {"a length and chunks", "chunks and a length", "a folded header", "a folded length",
                "a line feed alone in a header", "a NUL in a header", "a chunk with an extension",
                "a line feed in an extension", "a line feed after a chunk",
                "line feeds that end the head"}  # fmt: skip


@pytest.mark.parametrize("name", SMUGGLED)
def test_no_request_is_hidden_in_another_one(lab: Workspace, name: str) -> None:
    before = requests_of_servers(lab)
    answers = rude(lab).smuggle(name)
    passed_on = requests_of_servers(lab) - before
    if name in READ_ONE_WAY:
        assert passed_on <= 1
        assert not [line for line in answers if " 200 " in line]
    else:
        assert answers == ["HTTP/1.1 400 Bad request"]
        assert passed_on == 0


def test_a_second_deploy_changes_nothing_and_it_verifies(lab: Workspace) -> None:
    before = lab.on(GW, f"{CURRENT}; {RELOADS}")
    again = deploy(lab)
    assert "Success" not in again.split("Results")[0]
    assert lab.on(GW, f"{CURRENT}; {RELOADS}") == before
    verified = lab.corral("verify", GW, "--json", *LAB)
    rows = json.loads(verified.stdout)["checks"][GW]
    names = ["generation", "unit", "enabled", "members", "models", "keys", "routes", "reserved"]
    assert [row["check"] for row in rows] == [*names, "keys-stored", "keys-loaded"]
    assert verified.returncode == 0, said(verified)


def test_an_edited_gateway_is_seen_and_put_back(lab: Workspace) -> None:
    """The next reload would use the edited file, whatever runs now."""
    config = "/etc/corral/gateway/current/haproxy.cfg"
    text = lab.on(GW, f"cat {config}")
    lab.on(GW, f"echo '# by hand' >> {config} && systemctl disable --quiet haproxy")
    rows = json.loads(lab.corral("verify", GW, "--json", *LAB).stdout)["checks"][GW]
    assert {row["check"] for row in rows if not row["ok"]} == {"unit", "enabled"}
    deploy(lab, "--limit", GW)
    assert lab.on(GW, f"cat {config}") == text
    assert lab.corral("verify", GW, *LAB).returncode == 0


def test_it_is_planned_from_all_hosts_whatever_is_deployed(lab: Workspace) -> None:
    before = lab.on(GW, CURRENT)
    deploy(lab, "--limit", GW)
    deploy(lab, "--limit", "lab-2")
    assert lab.on(GW, CURRENT) == before
    assert serving(lab) == set(SERVERS)


def test_a_server_that_stops_is_left_out_and_comes_back(lab: Workspace) -> None:
    lab.on("lab-2", "systemctl stop corral-tiny-f16")
    assert all(complete(client(lab)) for _ in range(9)), "asked anew elsewhere"
    wait_until_serving(lab, {SERVERS[0], SERVERS[2]}, "its checks fail")
    lab.on("lab-2", "systemctl start corral-tiny-f16")
    wait_until_serving(lab, set(SERVERS), "its checks pass again")


def test_a_server_that_no_longer_takes_the_gateways_key_is_asked_no_more_and_named(
    lab: Workspace,
) -> None:
    """Checks send no key, so the server seems healthy; it answers 401 before it reads a request."""
    address = f"http://{lab.layout.address(2)}:8001"
    healthy = f"until curl --silent --fail {address}/health; do sleep 0.2; done"
    lab.on("lab-2", f"sed -i '$d' /etc/corral/keys/tiny-f16 && systemctl restart corral-tiny-f16"
                    f" && {healthy}")  # fmt: skip
    wait_until_serving(lab, set(SERVERS), "its checks pass")
    assert all(complete(client(lab)) for _ in range(9)), "asked anew elsewhere"
    wrong = "has other keys than the store of this controller"
    assert wrong in lab.corral("verify", "lab-2", "--json", *LAB).stdout
    for server in (SERVERS[0], SERVERS[2]):
        assert corral(lab, "drain", server) == 0
    with pytest.raises(openai.InternalServerError, match="refused the key of the gateway"):
        complete(client(lab))
    deploy(lab)
    for server in (SERVERS[0], SERVERS[2]):
        assert corral(lab, "ready", server) == 0
    assert wrong not in lab.corral("verify", "lab-2", "--json", *LAB).stdout
    assert all(complete(client(lab)) for _ in range(9))


# Answers every request as if all were well, and logs what it received.
STRANGER = """
import http.server
import sys
class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("HEARD", self.requestline, dict(self.headers), flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status":"ok"}')
    do_POST = do_GET
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Stranger).serve_forever()
"""


# The same, but it is still loading its model: so llama.cpp answers whoever asks for a completion.
LOADING = STRANGER.replace(
    "do_POST = do_GET",
    """def do_POST(self):
        print("HEARD", self.requestline, flush=True)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b'{"error":{"code":503,"message":"Loading model"}}')""",
)


@contextmanager
def stranger(
    lab: Workspace, host: str, unit: str, port: int, *, name: str = "stranger", text: str = STRANGER
) -> Iterator[None]:
    """A local user of a host takes the port of a stopped unit."""
    lab.on(host, f"systemctl stop {unit}; cat > /run/{name}.py <<'END'{text}END")
    run = f"systemd-run --quiet --unit={name} --uid=nobody --collect python3 -I /run/{name}.py"
    lab.on(host, f"{run} {port}; until ss -Htln sport = {port} | grep -q .; do sleep 0.1; done")
    try:
        yield
    finally:
        lab.on(host, f"systemctl stop {name}; systemctl restart served-by-corral {unit}")


def heard(lab: Workspace, host: str = "lab-2", name: str = "stranger") -> str:
    """What the stranger received in this test."""
    return lab.on(host, f"journalctl --unit={name} --output=cat --no-pager | sed -n '/HEARD/p'")


def test_whoever_takes_the_gateways_port_gets_nothing_of_its_clients(lab: Workspace) -> None:
    with stranger(lab, GW, "haproxy", 8000):
        with pytest.raises(openai.APIConnectionError):
            complete(client(lab).with_options(timeout=5))
        assert heard(lab, GW) == "", "no connection was ever made"
    wait_until_serving(lab, set(SERVERS), "it is back")
    assert complete(client(lab))


def test_whoever_takes_a_servers_port_gets_neither_keys_nor_prompts(lab: Workspace) -> None:
    with stranger(lab, "lab-2", "corral-tiny-f16", 8001):
        wait_until_serving(lab, {SERVERS[0], SERVERS[2]}, "its checks fail")
        assert all(complete(client(lab)) for _ in range(9)), "asked elsewhere"
        assert heard(lab) == "", "no connection was ever made"
        assert SERVERS[1] not in serving(lab)
        # On a host without packet rules the checks arrive, but they carry no secret.
        assert corral(lab, "drain", SERVERS[1]) == 0
        lab.on("lab-2", "nft delete table inet served_by_corral")
        wait_for(lambda: "GET /v1/health" in heard(lab), "it is checked")
        assert all(complete(client(lab)) for _ in range(9)), "asked elsewhere"
        assert {line.split(" HTTP/")[0] for line in heard(lab).splitlines()} == {
            "HEARD GET /v1/health"
        }
        assert "authorization" not in heard(lab).lower()


def test_a_server_that_loads_its_model_costs_no_request(lab: Workspace) -> None:
    """Its checks passed a moment ago; it answers 503 before it reads a request."""
    loading = {"name": "loading", "text": LOADING}
    with stranger(lab, "lab-2", "corral-tiny-f16", 8001, **loading):
        lab.on("lab-2", "nft delete table inet served_by_corral")
        wait_until_serving(lab, set(SERVERS), "its checks pass")
        assert all(complete(client(lab)) for _ in range(9)), "asked anew elsewhere"
        assert "HEARD POST" in heard(lab, name="loading")
    wait_until_serving(lab, set(SERVERS), "it is back")


def test_a_rude_client_takes_no_server_from_others(lab: Workspace) -> None:
    one = rude(lab)
    answers = [ask() for _ in range(10 * len(SERVERS)) for ask in (one.malformed_json, one.image)]
    assert {line for (line,) in answers} == {"HTTP/1.1 500 Internal Server Error"}, "by the server"
    assert one.huge_headers() == ["HTTP/1.1 400 Bad request"]
    assert serving(lab) == set(SERVERS)
    assert all(complete(client(lab)) for _ in range(3))
    time.sleep(5)
    assert serving(lab) == set(SERVERS), "nor do later checks take one out"


# On a busy machine the answer may be there before its client closes its side.
ANSWERED = ["HTTP/1.1 200 OK"]


@pytest.mark.parametrize(
    ("ask", "others"), [(RudeClient.half_closed, [ANSWERED]), (RudeClient.half_a_request, [])]
)
def test_who_hangs_up_half_gets_an_error_or_nothing(
    lab: Workspace, ask: Callable[[RudeClient], list[str]], others: list[list[str]]
) -> None:
    assert ask(rude(lab)) in ([], ["HTTP/1.1 400 Bad Request"], *others)
    assert serving(lab) == set(SERVERS)
    wait_for(lambda: not any(row["sessions"] for row in servers(lab).values()), "nothing is left")


def reply(asking: OpenAI) -> str:
    """The part of an answer that depends only on the prompt."""
    answer = asking.chat.completions.create(
        model=ALIAS, messages=[{"role": "user", "content": "Say hello."}], max_tokens=24,
        temperature=0,
    )  # fmt: skip
    return f"{answer.choices[0]} {answer.usage and answer.usage.completion_tokens}"


def test_a_rude_client_touches_no_answer_of_another_one(lab: Workspace) -> None:
    with second_client(lab) as other:
        asking = client(lab, other)
        # One reply of each server.
        expected = {reply(asking) for _ in range(3 * len(SERVERS))}
        with streams(asking, ALIAS) as seen, ThreadPoolExecutor() as pool:
            seen.wait_for_more()
            answers = pool.submit(rude(lab).everything)
            during = set()
            while not answers.done():
                during.add(reply(asking))
                assert all_are_up(lab)
                time.sleep(0.2)
            assert serving(lab) == set(SERVERS)
            seen.wait_for_more()
        assert seen.failures == []
        assert during <= expected
    answered = answers.result()
    assert answered.pop("half closed") in ([], ["HTTP/1.1 400 Bad Request"], ANSWERED)
    codes = {line.split()[1] for lines in answered.values() for line in lines}
    assert codes == {"400", "401", "404", "500"}, "500 by a server, to JSON that is none"
    assert serving(lab) == set(SERVERS)


def test_a_slow_body_holds_no_server(lab: Workspace) -> None:
    with ThreadPoolExecutor() as pool:
        slow = [pool.submit(rude(lab).slow_body, 5) for _ in range(9)]
        assert all(complete(client(lab)) for _ in range(3))
        assert [one.result() for one in slow] == [[]] * 9, "no answer before the body is whole"
    assert serving(lab) == set(SERVERS)


def test_nobody_is_left_means_an_error_that_clients_can_read(lab: Workspace) -> None:
    for server in SERVERS:
        assert corral(lab, "drain", server, "--last") == 0
    with pytest.raises(openai.InternalServerError, match="No server is available"):
        complete(client(lab))
    assert corral(lab, "status") == 1


def test_the_last_server_that_serves_is_not_drained_by_mistake(lab: Workspace) -> None:
    assert [corral(lab, "drain", server) for server in SERVERS[:2]] == [0, 0]
    refused = lab.corral("gateway", "drain", SERVERS[2], *LAB)
    assert refused.returncode == 1
    assert "is the last server" in refused.stderr
    assert "or add --last" in refused.stderr
    assert corral(lab, "weight", SERVERS[2], "0%") == 1
    assert serving(lab) == {SERVERS[2]}


def test_a_drain_cuts_no_request_nor_does_a_reload_meanwhile(lab: Workspace) -> None:
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        assert corral(lab, "drain", SERVERS[0]) == 0
        assert servers(lab)[SERVERS[0]]["sessions"] == 0
        assert corral(lab, "weight", SERVERS[1], "40%") == 0
        with lab.edited(INVENTORY, PORT, '{"port": 8000, "weights": {"lab-3/tiny-gpu": 60}}'):
            deploy(lab, "--limit", GW)
            after = servers(lab)
            assert [after[name]["admin"] for name in SERVERS] == ["drain", "ready", "ready"]
            assert [after[name]["weight"] for name in SERVERS] == [100, 40, 60]
            lab.on("lab-1", "systemctl restart corral-tiny-chat")
            seen.wait_for_more()
            assert servers(lab)[SERVERS[0]]["sessions"] == 0
            assert corral(lab, "ready", SERVERS[0]) == 0
            seen.wait_for_more()
        deploy(lab, "--limit", GW)
        assert corral(lab, "weight", SERVERS[1], "100%") == 0
        seen.wait_for_more()
    assert seen.failures == []


def test_a_restart_a_stop_and_a_start_of_a_member_fail_no_request(lab: Workspace) -> None:
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        before = lab.pid("lab-1", "tiny-chat")
        restarted = lab.corral("restart", SERVERS[0], *LAB)
        assert restarted.returncode == 0, said(restarted)
        assert f"{GW}: {SERVERS[0]} is drained after" in said(restarted)
        assert lab.pid("lab-1", "tiny-chat") not in (0, before)
        assert serving(lab) == set(SERVERS)
        seen.wait_for_more()
        stopped = lab.corral("stop", SERVERS[0], *LAB)
        assert stopped.returncode == 0, said(stopped)
        assert lab.pid("lab-1", "tiny-chat") == 0
        # No drain is left for which a start would have to wait.
        row = servers(lab)[SERVERS[0]]
        assert (row["up"], row["admin"]) == (False, "ready")
        seen.wait_for_more()
        started = lab.corral("start", SERVERS[0], *LAB)
        assert started.returncode == 0, said(started)
        assert serving(lab) == set(SERVERS)
        seen.wait_for_more()
    assert seen.failures == []


def rolled_out(lab: Workspace, state: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """For each changed server, what the plan said, and what was done."""
    done = rollout(lab, state, "--soak", "1")
    assert done.returncode == 0, said(done)
    found = journal(state)
    reports = {f"{one['host']}/{one['instance']}": one for one in found["reports"]}
    steps = {f"{one['host']}/{one['instance']}": one for one in found["steps"]}
    return {name: (step, reports[name]) for name, step in steps.items()}


def test_new_keys_of_a_member_fail_no_request_and_go_as_planned(
    lab: Workspace, tmp_path: Path
) -> None:
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        running = lab.pid("lab-1", "tiny-chat")
        with one_more_key(lab):
            ((name, (step, report)),) = rolled_out(lab, tmp_path / "one").items()
        assert name == SERVERS[0]
        assert step["changes"] == ["its keys are to be replaced"]
        assert step["how"] == f"{report['how']}, drained at its gateway"
        assert report["how"] == "in place"
        assert lab.pid("lab-1", "tiny-chat") not in (0, running)
        seen.wait_for_more()
        assert list(rolled_out(lab, tmp_path / "two")) == [SERVERS[0]]
        seen.wait_for_more()
    assert seen.failures == []


def test_a_new_gate_of_members_is_run_without_a_restart_as_planned(
    lab: Workspace, tmp_path: Path
) -> None:
    running = [lab.pid(*server.split("/")) for server in SERVERS]
    old, new = "slots = 2", "slots = 2\nsoak_seconds = 1"
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        with lab.edited("catalog/profiles/tiny-chat.toml", old, new):
            found = rolled_out(lab, tmp_path / "one")
            # Stored with the gate that it passed, so that it runs once.
            assert "nothing to do" in said(rollout(lab, tmp_path / "two"))
        for step, report in found.values():
            assert step["changes"] == ["its gate changed"]
            assert step["how"] == "without a restart, drained at its gateway"
            assert report["how"] == "without a restart"
            assert "soak" in [row["part"] for row in report["gate"]]
        assert set(SERVERS) <= set(found)
        seen.wait_for_more()
    assert seen.failures == []
    assert [lab.pid(*server.split("/")) for server in SERVERS] == running
    deploy(lab)
    assert [lab.pid(*server.split("/")) for server in SERVERS] == running


def test_the_last_member_is_stopped_by_force_alone(lab: Workspace) -> None:
    """The command in the refusal works."""
    running = [lab.pid(*server.split("/")) for server in SERVERS]
    assert lab.corral("stop", *SERVERS, *LAB).returncode == 1
    assert [lab.pid(*server.split("/")) for server in SERVERS] == running
    assert lab.corral("stop", *SERVERS[:2], *LAB).returncode == 0
    for verb in ("restart", "stop"):
        refused = lab.corral(verb, SERVERS[2], *LAB)
        assert refused.returncode == 1
        printed = " ".join(refused.stderr.split())
        assert f"is the last server of {ALIAS} at {GW} that serves; nothing was stopped" in printed
        assert lab.pid(*SERVERS[2].split("/")) == running[2]
    command = re.search(r"`corral (stop [^`]* --force)`", printed)
    assert command
    forced = lab.corral(*command[1].split())
    assert forced.returncode == 0, said(forced)
    assert lab.pid(*SERVERS[2].split("/")) == 0
    assert lab.corral("start", *SERVERS, *LAB).returncode == 0
    assert serving(lab) == set(SERVERS)


def test_a_restart_without_a_drain_is_noticed_by_the_same_load(lab: Workspace) -> None:
    with streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        lab.on("lab-1", "systemctl kill --signal=STOP corral-tiny-chat")
        wait_for(lambda: servers(lab)[SERVERS[0]]["sessions"] != 0, "a request is with it")
        killed = lab.pid("lab-1", "tiny-chat")
        lab.on("lab-1", "systemctl kill --signal=KILL corral-tiny-chat")
        again = "systemd starts it again"
        wait_for(lambda: lab.pid("lab-1", "tiny-chat") not in (0, killed), again)
        assert lab.corral("start", SERVERS[0], *LAB).returncode == 0
        wait_until_serving(lab, set(SERVERS), "it serves again")
        seen.wait_for_more()
    lab.on("lab-1", "systemctl reset-failed corral-tiny-chat")
    assert seen.failures


def test_a_drain_waits_for_requests_that_a_reload_left_behind(lab: Workspace) -> None:
    """They belong to an old worker, of which the current one knows nothing."""
    assert [corral(lab, "drain", server) for server in SERVERS[1:]] == [0, 0]
    lab.on("lab-1", "systemctl kill --signal=STOP corral-tiny-chat")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(complete, client(lab))
        wait_for(lambda: servers(lab)[SERVERS[0]]["sessions"] == 1, "the request is with it")
        lab.on(GW, "systemctl reload haproxy")
        assert servers(lab)[SERVERS[0]]["sessions"] == 1
        assert corral(lab, "drain", SERVERS[0], "--last", "--limit", "0") == 1
        lab.on("lab-1", "systemctl kill --signal=CONT corral-tiny-chat")
        assert slow.result()
    assert corral(lab, "drain", SERVERS[0], "--last") == 0


def test_a_lease_brings_a_server_back_when_nobody_does(lab: Workspace) -> None:
    assert corral(lab, "drain", SERVERS[0], "--lease", "15") == 0
    assert SERVERS[0] not in serving(lab)
    wait_until_serving(lab, set(SERVERS), "the lease ends")
    assert corral(lab, "drain", SERVERS[0], "--lease", "4") == 0
    assert corral(lab, "ready", SERVERS[0]) == 0
    assert corral(lab, "drain", SERVERS[0], "--lease", "600") == 0
    assert lab.on(GW, "systemctl list-timers --all | grep -c corral-gateway-lease") == "1"
    assert lab.on(GW, "sleep 5; systemctl is-active 'corral-gateway-lease-lab-1_tiny-chat:*.timer'")
    assert SERVERS[0] not in serving(lab), "the shorter lease from before is gone"


def test_a_member_that_is_tuned_is_drained_and_comes_back_whoever_is_killed(
    lab: Workspace, tmp_path: Path
) -> None:
    host, _, name = SERVERS[0].partition("/")
    job, log = f"tune-{name}", tmp_path / "log"
    subject = ("--only", "micro-batch", "--prompt-tokens", "64", "--answer-tokens", "8")
    words = ("tune", SERVERS[0], *subject, "--window", "--results", str(tmp_path / "results"), *LAB)

    def send(signal: str) -> None:
        unit = f"corral-job-{job}.service"
        lab.try_on(host, f"systemctl kill --kill-whom=main --signal={signal} {unit}")

    def measuring() -> subprocess.Popen[bytes]:
        """The job waits, with the server stopped and drained."""
        # Lines of an earlier one would be mistaken for its own.
        lab.on(host, f"rm -f /var/lib/corral/jobs/{job}/log")
        process = lab.start_corral(*words, log=log)
        wait_for(lambda: "run 1 of" in job_log(lab, host, job), "it measures")
        send("STOP")
        assert lab.pid(host, name) == 0
        assert servers(lab)[SERVERS[0]]["admin"] == "drain"
        return process

    with lab.edited(TRAFFIC, *LEASES), streams(client(lab), ALIAS) as seen:
        seen.wait_for_more()
        try:
            of_killed_job = measuring()
            send("KILL")
            assert of_killed_job.wait(120) == 1
            assert f"{GW} sends {SERVERS[0]} requests again within" in log.read_text()
            assert corral(lab, "ready", SERVERS[0]) == 0
            killed = measuring()
            killed.kill()
            killed.wait()
            send("CONT")
            wait_for_end(lab, host, job, "the host goes on alone")
        finally:
            # A job that waits would be in the way of the next test.
            send("KILL")
        assert lab.pid(host, name) != 0
        wait_until_serving(lab, set(SERVERS), "its lease ends")
        seen.wait_for_more()
    assert seen.failures == []


@contextmanager
def unknown_word(lab: Workspace) -> Iterator[None]:
    with lab.edited("templates/haproxy.cfg.j2", "balance leastconn", "balanse leastconn"):
        yield


@contextmanager
def absent_address(lab: Workspace) -> Iterator[None]:
    with lab.edited(INVENTORY, '{"gateway": {"address": str(_lab.address(n))', '{"gateway": {'
                    '"address": "192.0.2.1"'):  # fmt: skip
        yield


@pytest.mark.parametrize(
    ("mistake", "words"), [(unknown_word, "balanse"), (absent_address, "192.0.2.1")]
)
def test_a_configuration_that_haproxy_does_not_take_changes_nothing(
    lab: Workspace, mistake: object, words: str
) -> None:
    before = lab.on(GW, f"{CURRENT}; ls /etc/corral/gateway; systemctl show haproxy -P MainPID")
    with streams(client(lab), ALIAS) as seen:
        with mistake(lab):  # type: ignore[operator]
            refused = lab.deploy("--limit", GW)
        seen.wait_for_more()
    assert refused.returncode == 1
    assert words in said(refused)
    assert seen.failures == []
    pid = "systemctl show haproxy -P MainPID"
    assert lab.on(GW, f"{CURRENT}; ls /etc/corral/gateway; {pid}") == before
    deploy(lab, "--limit", GW)


def test_an_edited_configuration_is_put_back(lab: Workspace) -> None:
    before = lab.on(GW, CURRENT)
    lab.on(GW, "sed -i 's/fall 2/fall 9/' /etc/corral/gateway/current/haproxy.cfg")
    deploy(lab, "--limit", GW)
    assert lab.on(GW, CURRENT) == before
    assert "fall 2" in lab.on(GW, "cat /etc/corral/gateway/current/haproxy.cfg")


def test_it_serves_alone_after_a_reboot(lab: Workspace) -> None:
    lab.on(GW, "systemctl restart haproxy")
    wait_for(lambda: bool(complete(client(lab))), "it answers again")
    assert lab.on(GW, "systemctl is-enabled haproxy") == "enabled"


def exposure(lab: Workspace) -> float:
    printed = lab.on(GW, "systemd-analyze security --no-pager haproxy.service | tail -1")
    found = re.search(r"exposure level for haproxy.service: ([0-9.]+)", printed)
    assert found, printed
    return float(found[1])


def test_haproxy_is_confined_and_its_master_is_not_root(lab: Workspace) -> None:
    assert exposure(lab) <= 1.2
    assert set(lab.on(GW, "ps -o user= -C haproxy").split()) == {"haproxy"}
    assert lab.on(GW, "stat -c '%U %a' /run/corral-gateway/master.sock") == "haproxy 600"
    assert lab.on(GW, OPEN_FILES) == ""
    capabilities = "grep -h ^CapEff /proc/$(pgrep -o haproxy)/status"
    assert lab.on(GW, capabilities).split()[1].strip("0") == ""


def test_a_port_below_1024_costs_one_capability(lab: Workspace) -> None:
    with lab.edited(INVENTORY, PORT, '{"port": 443}'):
        deploy(lab, "--limit", GW)
        address = f"http://{lab.layout.address(GATEWAY)}:443/v1"
        assert complete(client(lab).with_options(base_url=address))
        assert exposure(lab) <= 2.0
        lab.on(GW, "systemctl reload haproxy")
        assert complete(client(lab).with_options(base_url=address))
    deploy(lab, "--limit", GW)
    assert complete(client(lab))


def test_other_confines_begin_with_a_restart_and_keep_who_is_drained(lab: Workspace) -> None:
    pid = "systemctl show haproxy -P MainPID"
    before = lab.on(GW, pid)
    assert corral(lab, "drain", SERVERS[0]) == 0
    with lab.edited("templates/haproxy.service.conf.j2", "LimitCORE=0", "LimitCORE=1"):
        deploy(lab, "--limit", GW)
    changed = lab.on(GW, pid)
    assert changed != before
    assert servers(lab)[SERVERS[0]]["admin"] == "drain"
    deploy(lab, "--limit", GW)
    assert lab.on(GW, pid) != changed


def test_a_new_client_key_is_seen_by_nobody_and_a_revoked_one_opens_nothing(lab: Workspace) -> None:
    path, new = lab.layout.keys / GW / f"gateway-{ALIAS}", f"canary-{ssl.RAND_bytes(16).hex()}"
    before = path.read_text()
    path.write_text(f"{before}{new}\n")
    try:
        with watched(new) as seen:
            shown = [said(lab.deploy(flag, "--limit", GW)) for flag in ("--debug", "--diff")]
            shown += [said(lab.corral(*words, *LAB)) for words in (("plan", GW), ("verify", GW))]
        assert complete(client(lab, new))
        assert complete(client(lab)), "the old one still works"
        assert seen == set()
        assert not [text for text in shown if new in text]
        wanted = f"umask 077; tail -1 /etc/corral/gateway/current/clients-{ALIAS} > /root/.wanted"
        look = (
            "grep -rlF --devices=skip --exclude=.wanted -f /root/.wanted /etc /opt /root /run /var"
        )
        found = lab.on(GW, f"{wanted}; {look}").splitlines()
        folder = f"/etc/corral/gateway/{lab.on(GW, CURRENT)}"
        assert found == [f"{folder}/clients-{ALIAS}"]
        assert lab.try_on(GW, f"{JOURNAL}; rm /root/.wanted").stdout.strip() == "0"
        assert lab.on(GW, OPEN_FILES) == ""
    finally:
        path.write_text(before)
    known, revoked = Idle(lab, key(lab)), Idle(lab, new)
    assert (known.status(), revoked.status()) == (200, 200)
    deploy(lab, "--limit", GW)
    with pytest.raises(openai.AuthenticationError):
        complete(client(lab, new))
    # Connections from before the reload: none is closed while a request may be on its way.
    assert (known.status(), revoked.status()) == (200, 401)


class Idle:
    """A client that keeps its connection open and never asks again by itself."""

    def __init__(self, lab: Workspace, shown: str) -> None:
        self.link = HTTPConnection(str(lab.layout.address(GATEWAY)), 8000, timeout=60)
        self.headers = {"Authorization": f"Bearer {shown}"}
        self.link.connect()
        # It would open another connection.
        self.link.auto_open = 0

    def status(self) -> int:
        self.link.request("GET", "/v1/models", headers=self.headers)
        answer = self.link.getresponse()
        answer.read()
        return answer.status


def test_with_a_certificate_it_speaks_tls(lab: Workspace, tmp_path: Path) -> None:
    pem, address = tmp_path / "tls.pem", str(lab.layout.address(GATEWAY))
    lab.on(GW, f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=gw -addext "
               f"subjectAltName=IP:{address} -keyout /root/k -out /root/c 2>/dev/null")  # fmt: skip
    pem.write_text(lab.on(GW, "cat /root/c /root/k; rm /root/c /root/k") + "\n")
    old = '{"gateway": {"address"'
    with lab.edited(INVENTORY, old, f'{{"gateway": {{"tls_certificate": "{pem}", "address"'):
        deploy(lab, "--limit", GW)
        trusting = ssl.create_default_context(cafile=str(pem))
        with httpx.Client(verify=trusting) as http:
            answer = http.get(
                f"https://{address}:8000/v1/models", headers={"Authorization": f"Bearer {key(lab)}"}
            )
        assert answer.status_code == 200
        verified = lab.corral("verify", GW, *LAB)
        assert verified.returncode == 0, said(verified)
    deploy(lab, "--limit", GW)
    assert complete(client(lab))


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]", "0.0.0.0", "[::]"])
def test_haproxy_takes_every_kind_of_address(lab: Workspace, address: str) -> None:
    config = "/run/tried.cfg"
    bind = f"s/^  bind [^ ]*:/  bind {address}:/"
    lab.on(GW, f"sed '{bind}' /etc/corral/gateway/current/haproxy.cfg > {config}")
    assert lab.on(GW, f"grep -c '^  bind {re.escape(address)}:' {config}") != "0"
    assert lab.on(GW, f"haproxy -c -f {config}") == "Configuration file is valid"


SEEN = (("lab-1", "tiny-chat"), ("lab-2", "tiny-f16"))
Drift = dict[str, dict[str, set[str]]]
DROP_IN = "/etc/systemd/system/corral-tiny-chat.service.d"
CHANGED = f"printf '# by hand\\n' >> /etc/corral/gateway/$(basename $({CURRENT}))/haproxy.cfg"
DAILY = (
    f'echo \'{{"paths": {HostPaths().model_dump_json()}, "rehash_bytes_per_day": 100000000000}}\''
    f" | python3 -I {HostPaths().helper} daily"
)


def drift(lab: Workspace) -> tuple[int, Drift]:
    """Exit code of `corral drift`, and for each host what is found where, of its JSON."""
    done = lab.corral("drift", "--json", *LAB)
    assert "Traceback" not in done.stderr
    found: Drift = {}
    for host, rows in json.loads(done.stdout).items():
        found[host] = {}
        for row in rows:
            assert all(row.values()), row
            found[host].setdefault(row["where"], set()).add(row["found"])
    return done.returncode, {host: rows for host, rows in found.items() if rows}


def test_drift_of_units_weights_kernel_and_gateway_is_shown_and_the_next_step_ends_it(
    lab: Workspace,
) -> None:
    assert drift(lab) == (0, {})
    before = {host: lab.pid(host, name) for host, name in SEEN}
    lab.on("lab-1", f"mkdir {DROP_IN} && printf '[Service]\\nNice=5\\n' > {DROP_IN}/mine.conf")
    lab.on("lab-1", "systemctl daemon-reload && mkdir -p /etc/corral-lab/kernel/proc")
    lab.on("lab-1", "(cat /proc/cmdline; echo iommu=off) > /etc/corral-lab/kernel/proc/cmdline")
    lab.on("lab-2", f'python3 -c "{ROT.format(models=MODELS)}"')
    lab.on(GW, CHANGED)
    try:
        code, found = drift(lab)
        assert (code, set(found)) == (
            2,
            {"lab-1", GW},
        )  # size and time of the weights are as before
        assert found["lab-1"]["kernel command line"] == {"iommu=off is new"}
        assert found["lab-1"]["tiny-chat"] == {"files beside its unit file change it"}
        assert any("was changed" in one for one in found[GW]["gateway"]), found
        lab.on("lab-2", DAILY)
        code, found = drift(lab)
        assert (code, set(found)) == (2, {"lab-1", "lab-2", GW})
        assert "other bytes than were locked" in found["lab-2"]["weights"]
        shown = lab.corral("drift", "lab-2", *LAB)
        assert (shown.returncode, "other bytes" in shown.stdout) == (2, True)
        # Nothing was changed by looking.
        assert {host: lab.pid(host, name) for host, name in SEEN} == before
    finally:
        lab.on("lab-1", f"rm -rf {DROP_IN} && systemctl daemon-reload")
    deploy(lab)
    assert drift(lab) == (0, {})
    lab.on("lab-1", "rm /etc/corral-lab/kernel/proc/cmdline")
    assert drift(lab)[1] == {"lab-1": {"kernel command line": {"it is gone"}}}
    deploy(lab)
