"""The rounds of the service: GPU memory of all servers, and completions of those that ask for it.

They run in threads, as a server or nvidia-smi may hang. Restarts of both count together.
"""

import contextlib
import json
import os
import sys
import threading
import time
from functools import partial

from corral_host import engines
from corral_host.nvidia import nvidia_smi
from corral_host.server.http import chat, loaded_key
from corral_host.server.probe_client import ask
from corral_host.system.addresses import missing_address
from corral_host.system.commands import FAULTS, HostError, read_json, say
from corral_host.watch.look import current, is_loaded, run_of, without_gpu
from corral_host.watch.measures import Record, act, is_fine

ROUND_SECONDS = 10
# A server is without GPU if it is found so twice: the gateway has it out within a minute.
LOOKS = 2
# For servers whose profile has no [watchdog].
RESTARTS = 3
WORK_SECONDS = 10
ACTING = threading.Lock()


def watch(path):
    """Watch until the settings at ``path`` or this program change. Never returns."""
    settings = read_json(path)
    if not settings:
        raise HostError(f"{path} has no settings", "run the same deploy again")
    began = signs(path)
    loops = [partial(memory_round, settings, {})]
    seconds = [ROUND_SECONDS]
    for name, watched in settings["instances"].items():
        if watched["watchdog"]:
            loops.append(partial(answer_round, settings, name, Asked()))
            seconds.append(watched["watchdog"]["every_seconds"])
    threads = [
        threading.Thread(target=again, args=pair, daemon=True) for pair in zip(loops, seconds)
    ]
    for thread in threads:
        thread.start()
    while signs(path) == began and all(thread.is_alive() for thread in threads):
        time.sleep(1)
    # Not sys.exit(): a thread may wait for a server that hangs.
    sys.stdout.flush()
    os._exit(0)


def signs(path):
    """What changes with the settings and with this program."""
    found = []
    for one in (path, sys.argv[0]):
        with contextlib.suppress(OSError):
            status = os.stat(one)
            found.append((status.st_ino, status.st_mtime_ns))
    return found


def again(one_round, seconds):
    while True:
        try:
            one_round()
        except FAULTS as fault:
            say(f"a round failed: {type(fault).__name__}: {fault}")
        time.sleep(seconds)


def memory_round(settings, seen):
    """Look at the GPU memory of each server; ``seen``: name -> run and number of faults."""
    with_gpus = []
    for name, watched in settings["instances"].items():
        instance = current(watched)
        run = instance and instance.get("gpus") and run_of(instance, settings["state"])
        if run and is_loaded(instance):
            with_gpus.append((name, instance, run))
        else:
            seen.pop(name, None)
    smi = nvidia_smi.ask() if with_gpus else None
    for name, instance, run in with_gpus:
        record = Record(settings["records"], name)
        why = without_gpu(instance, run, smi)
        before, count = seen.get(name, (run["id"], 0))
        count = (count if before == run["id"] else 0) + 1 if why else 0
        seen[name] = run["id"], count
        if count >= LOOKS:
            limit = (settings["instances"][name]["watchdog"] or {}).get("restarts", RESTARTS)
            with ACTING:
                if run_of(instance, settings["state"]) == run:
                    act(record, instance, run, why, limit)
            seen.pop(name)
        elif not why and not settings["instances"][name]["watchdog"]:
            is_fine(record, run["id"])


class Asked:
    """What is known of a server's answers since its start.

    ``loaded``: it had its weights; ``failures``: in a row; ``work``: its figure at the last look
    """

    def __init__(self):
        self.begin(None)

    def begin(self, run):
        self.run, self.loaded, self.failures, self.work = run, False, 0, None


def answer_round(settings, name, asked):
    """Ask one server for a token, unless it has worked since the last look."""
    watched = settings["instances"][name]
    watchdog, instance = watched["watchdog"], current(watched)
    run = instance and run_of(instance, settings["state"])
    if not run:
        asked.begin(None)
        return
    if asked.run != run["id"]:
        asked.begin(run["id"])
    asked.loaded = asked.loaded or is_loaded(instance) or is_late(instance, run)
    if not asked.loaded:
        return
    if away := missing_address(instance["endpoint"]):
        # No restart would bring the address back, and the last one would be a stop.
        say(f"{name} is not asked: {away}")
        return
    why = unanswered(instance, asked, watchdog["answer_seconds"])
    if why and run_of(instance, settings["state"]) != run:
        return
    record = Record(settings["records"], name)
    asked.failures = asked.failures + 1 if why else 0
    if not why:
        is_fine(record, run["id"])
    elif asked.failures < watchdog["failures"]:
        say(f"{name}: {why} ({asked.failures} of {watchdog['failures']})")
    else:
        with ACTING:
            act(record, instance, run, f"{why}, {asked.failures} times", watchdog["restarts"])


def is_late(instance, run):
    """Whether a server should have loaded long ago: it may have frozen before the first look."""
    return time.monotonic() - run["began"] > instance["ready_timeout_seconds"]


def unanswered(instance, asked, seconds):
    """Why a server does not serve; empty if it has worked since the last look, or answers now."""
    before, asked.work = asked.work, work(instance)
    if worked(before, asked.work):
        return ""
    try:
        one_token(instance, seconds)
    except FAULTS as fault:
        # Its queue may be long.
        if worked(asked.work, work(instance)):
            return ""
        return f"no completion: {str(fault).splitlines()[0]}"
    # What was asked for is no work of others.
    asked.work = work(instance)
    return ""


def worked(before, after):
    return None not in (before, after) and before != after


def one_token(instance, seconds):
    """Raises one of FAULTS without an answer in time; a request that is refused was answered."""
    body = {**chat(instance), "max_tokens": 1}
    route = "POST /v1/chat/completions"
    code, text = ask(instance, route, body, loaded_key(instance), seconds)
    if code >= 500 or (code == 200 and not json.loads(text)["choices"]):
        raise HostError(f"answered {code}: {text.strip()[:200]}")


def work(instance):
    """A figure that grows with each token that a server computes; None if it does not report it."""
    if not instance["metrics"]:
        return None
    try:
        key = loaded_key(instance)
        code, text = ask(instance, "GET /metrics", key=key, seconds=WORK_SECONDS)
    except FAULTS:
        return None
    return engines.of(instance).work(text) if code == 200 else None
