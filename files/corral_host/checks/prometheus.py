"""Whether Prometheus and Alertmanager answer on this host, and what Prometheus says of targets."""

import http.client
import json
import urllib.error
import urllib.request

ANSWER_SECONDS = 5
UNAUTHORIZED = 401
MOST_BYTES = 16 * 1024**2
# A proxy of the environment is not for addresses of this host.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def got(url):
    """The body of an answer with status 200. Raises OSError, HTTPException or ValueError."""
    with OPENER.open(url, timeout=ANSWER_SECONDS) as answered:
        return answered.read(MOST_BYTES)


def answer(url):
    """Why nothing healthy answers at a URL; "" if it does."""
    try:
        got(url)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def rows(plan):
    """Rows of verify for what a plan has running here, as checks/verify.py has them."""
    for unit, url in plan["answers"].items():
        problem = answer(url)
        yield row(unit, "answers", problem, "healthy")
    for unit, url in plan.get("closed", {}).items():
        yield row(unit, "login", open_to_all(url), "refuses who has none")
    if plan["targets"]:
        yield of_targets(plan["targets"])


def open_to_all(url):
    """Why it is not sure that a URL is refused without a login; "" if it is."""
    try:
        got(url)
    except urllib.error.HTTPError as error:
        return "" if error.code == UNAUTHORIZED else f"status {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{url} answers everybody"


def of_targets(url):
    """Targets that are down are named; each is an alert of its own, and other hosts' to repair."""
    try:
        found = json.loads(got(url))["data"]["activeTargets"]
        down = {one["scrapeUrl"]: one["lastError"] for one in found if one["health"] == "down"}
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        return row("prometheus.service", "targets", f"{type(error).__name__}: {error}", "")
    count = f"{len(found) - len(down)} of {len(found)} are not down"
    return row("prometheus.service", "targets", "", "; ".join([count, *named(down)]))


def named(down):
    return [f"{where}: {why}" for where, why in sorted(down.items())]


def row(unit, check, problem, good):
    return {"instance": unit, "check": check, "ok": not problem, "detail": problem or good}
