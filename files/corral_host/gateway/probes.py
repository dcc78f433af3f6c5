"""Checks of a gateway, as its clients see it and as HAProxy reports it."""

import http.client
import json
import ssl
import time
from pathlib import Path

from corral_host.gateway.control import serves
from corral_host.gateway.generations import UNIT, UNPROVED, current, drop_in_path, wrong_files
from corral_host.gateway.socket import running_generation, servers
from corral_host.instance.unit_changes import strange_drop_ins
from corral_host.instance.unit_file import ENABLED, unit_file_state
from corral_host.packets import reserve
from corral_host.server.http import exchange, local
from corral_host.system.commands import FAULTS

# Time for HAProxy's checks (two, two seconds apart) after a server became ready.
SETTLE_SECONDS = 15
TIMEOUT_SECONDS = 30
# X509_V_FLAG_PARTIAL_CHAIN, which Python has a name for since 3.10.
PARTIAL_CHAIN = 0x80000
# Spellings that some servers treat as an open route.
ODD = (
    ("GET", "/v1/models/"),
    ("GET", "//v1/models"),
    ("GET", "/v1/%6dodels"),
    ("GET", "/V1/models"),
)


def check_gateway(plan, units):
    """Rows for each alias, like those of ``check_instance``. ``units``: systemd's folder."""
    plan = {**plan, "units": units}
    for pool in plan["pools"]:
        for one in (generation, unit, enabled, members, models, keys, routes, reserved):
            yield row(one, plan, pool)


def row(one, plan, pool):
    """The row of one check of one alias."""
    found = attempt(one, plan, pool)
    return {"instance": f"gateway {pool['alias']}", "check": one.__name__, **found}


def attempt(one, plan, pool):
    try:
        ok, detail = one(plan, pool)
    except FAULTS as error:
        ok, detail = False, f"{type(error).__name__}: {error}"
    return {"ok": ok, "detail": detail}


def generation(plan, _):
    root = Path(plan["folder"])
    planned, runs = current(root), running_generation()
    proved = not (root / UNPROVED).exists()
    detail = f"{runs} runs, {planned} is installed{'' if proved else ', and was not proved'}"
    return planned is not None and runs == planned and proved, detail


def unit(plan, _):
    """The files of the next start or reload are as Corral wrote them, without drop-ins beside."""
    wrong = wrong_files(Path(plan["folder"]), plan["units"])
    beside = strange_drop_ins(UNIT, but=drop_in_path(plan["units"]))
    changes = [f"edited: {', '.join(wrong)}; a deploy overwrites it"] if wrong else []
    changes += [f"changed by {', '.join(beside)}"] if beside else []
    return not changes, "; ".join(changes) or "as Corral wrote it"


def enabled(*_):
    state = unit_file_state(UNIT)
    return state == ENABLED, "starts at boot" if state == ENABLED else f"{UNIT} is {state}"


def members(_, pool):
    """HAProxy has exactly the planned servers, and one serves within SETTLE_SECONDS."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = {n: row for n, row in servers().items() if row["pool"] == pool["name"]}
        some = any(map(serves, found.values()))
        if some or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    states = [f"{m['name']} {format_state(found.get(m['server']))}" for m in pool["members"]]
    whole = set(found) == {m["server"] for m in pool["members"]}
    return some and whole, ", ".join(states)


def format_state(row):
    if row is None:
        return "is not known"
    up = "up" if row["up"] else f"down ({row['check']})"
    return up if row["admin"] == "ready" else f"{up}, {row['admin']}"


def models(plan, pool):
    status, body = request(plan, pool, "GET", "/v1/models", client_key(plan, pool))
    if status != 200:
        return False, f"/v1/models answered {status}"
    served = json.loads(body)["data"][0]["id"]
    return served == pool["alias"], f"serves {served} on port {pool['port']}"


def client_key(plan, pool):
    path = Path(plan["folder"], "current", f"clients-{pool['name']}")
    return path.read_text().split("\n")[0]


def keys(plan, pool):
    """Requests without a key, or with one that no client has, are refused."""
    codes = [
        request(plan, pool, method, path, key)[0]
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"))
        for key in (None, "not-a-key-of-any-client")
    ]
    return set(codes) == {401}, f"answered {', '.join(map(str, codes))} without one"


def routes(plan, pool):
    """The gateway itself refuses closed routes to a client's key.

    Routes that change a server are tried only if all that read are closed.
    """
    key, asked = client_key(plan, pool), [*ODD, *sorted(map(tuple, pool["closed"]))]
    for reading in (True, False):
        some = [route for route in asked if (route[0] == "GET") is reading]
        reached = [route for route in some if not is_closed(*request(plan, pool, *route, key))]
        if reached:
            routes = ", ".join(" ".join(route) for route in reached)
            return False, f"clients reach {routes}"
    return True, f"{len(asked)} routes are closed"


def reserved(plan, pool):
    """While HAProxy is down, nobody else can get its clients' keys and prompts."""
    if plan["tls"]:
        return True, "its certificate proves who answers"
    return reserve.port_status(pool["port"])


def is_closed(status, body):
    """Whether the gateway itself refused; a server's own 404 has another text."""
    return status == 404 and "No such route." in body


def request(plan, pool, method, path, key):
    """Send one request as a client; returns status and body."""
    address = local(plan["address"])
    if plan["tls"]:
        link = http.client.HTTPSConnection(
            address, pool["port"], timeout=TIMEOUT_SECONDS, context=only_its_own(plan)
        )
    else:
        link = http.client.HTTPConnection(address, pool["port"], timeout=TIMEOUT_SECONDS)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return exchange(link, method, path, headers, seconds=TIMEOUT_SECONDS)


def only_its_own(plan):
    """A TLS context that trusts only the installed certificate; an address replaces its name."""
    context = ssl.create_default_context(cafile=f"{plan['folder']}/current/tls.pem")
    context.check_hostname = False
    context.verify_flags |= PARTIAL_CHAIN
    return context
