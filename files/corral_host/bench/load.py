"""A load test of a running server, for as long as its controller sends lines.

The controller gets facts about the server, and then sends the requests itself, or has the engine's
own load generator run here. One load test or benchmark at a time: two would disturb each other.
"""

import contextlib
import json
import os
import random
import select
import string
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from corral_host import engines
from corral_host.bench import load_child
from corral_host.bench.measure import chosen, only_one, refuse_unready
from corral_host.checks.program_unit import cpu_name, gpu_names, last, transient
from corral_host.release.manifest import manifest_of
from corral_host.server.http import call, loaded_key, local, url_at
from corral_host.system.commands import FAULTS, HostError, as_fault, show
from corral_host.system.locks import SILENCE_SECONDS

WORDS, SHORTEST, LONGEST = 400, 2, 8
TOKENIZE_SECONDS = 60
# Where the engine's program finds a server that listens on a unix socket.
RELAY_PORT = 8000


def load(document):
    """Hold the host's benchmark lock, answer with facts, and run what the controller asks for."""
    instance = chosen(document)
    with only_one(document):
        refuse_unready(document, instance)
        tell({"held": True, **facts(document, instance)})
        lines = Lines(sys.stdin.fileno())
        while (line := lines.next()) is not None:
            if line.strip():
                tell(answer(instance, json.loads(line), lines))


def tell(found):
    # A line of its own, whatever start-up files of a shell have printed before.
    print(f"\n{json.dumps(found)}", flush=True)


def answer(instance, question, lines):
    try:
        return {"ran": run_program(instance, question, lines)}
    except FAULTS as fault:
        return {"fault": as_fault(fault)}


class Lines:
    """Lines of standard input; None at its end, or once the controller has fallen silent."""

    def __init__(self, handle):
        self.handle, self.rest = handle, b""

    def next(self):
        while b"\n" not in self.rest:
            if not self.more(SILENCE_SECONDS):
                return None
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def more(self, seconds):
        """Read what comes within so many seconds; False at the end or without anything."""
        if not select.select([self.handle], [], [], seconds)[0]:
            return False
        block = os.read(self.handle, 65536)
        self.rest += block
        return bool(block)


def facts(document, instance):
    return {
        "began_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": cpu_name(),
        "gpus": gpu_names(instance),
        "commit": manifest_of(document["release"])["commit"],
        "in_flight": in_flight(instance),
        "tokens": tokens(instance),
        "url": url(instance),
    }


def ask(instance, method, path, body=None):
    code, text = call(instance, method, path, body, loaded_key(instance), timeout=TOKENIZE_SECONDS)
    if code != 200:
        raise HostError(f"{instance['name']}: {path} answered {code}")
    return text


def in_flight(instance):
    """Requests of others; None if the server does not report them."""
    with contextlib.suppress(*FAULTS):
        return engines.of(instance).in_flight(instance, partial(ask, instance, "GET"))
    return None


def tokens(instance):
    """Tokens of random text in the model's vocabulary, each once; empty if it cannot be asked."""
    chance = random.SystemRandom()
    words = [
        "".join(chance.choices(string.ascii_lowercase, k=chance.randint(SHORTEST, LONGEST)))
        for _ in range(WORDS)
    ]
    found = engines.of(instance).tokens(instance, partial(ask, instance, "POST"), " ".join(words))
    return sorted(set(found))


def url(instance):
    """Where the engine's program finds the server."""
    end = instance["endpoint"]
    if end["socket"]:
        return f"http://127.0.0.1:{RELAY_PORT}"
    return url_at(local(end["address"]), end["port"])


def load_unit(name):
    return f"corral-load-{name}.service"


def run_program(instance, question, lines):
    """Run a load generator of the engine in a unit of its own; returns the figures it wrote.

    The unit's input is a pipe from this process: the key is its first line, and its end ends the
    program, so that nothing stays when this process or its controller dies.
    """
    unit = load_unit(instance["name"])
    stop(unit)
    with subprocess.Popen(
        [*program_unit(instance, unit, question), *child(instance, question)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as program:  # fmt: skip
        try:
            program.stdin.write(f"{loaded_key(instance)}\n".encode())
            program.stdin.flush()
            text = listen(program, lines)
            program.wait()
        finally:
            with contextlib.suppress(BrokenPipeError):
                program.stdin.close()
            stop(unit)
    return result(text, program.returncode, question)


def stop(unit):
    """Stop a unit, which may not exist."""
    subprocess.run(
        ["systemctl", "stop", unit], stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip


def listen(program, lines):
    """All output of a program; ends it when the controller is gone or silent."""
    text, silent = [], time.monotonic()
    out = program.stdout.fileno()
    while True:
        ready = select.select([out, lines.handle], [], [], SILENCE_SECONDS / 4)[0]
        if lines.handle in ready:
            if not lines.more(0):
                raise HostError("the controller has ended the load test")
            silent = time.monotonic()
        if time.monotonic() - silent > SILENCE_SECONDS:
            raise HostError("the controller has fallen silent, and the load test was ended")
        if out in ready:
            block = os.read(out, 65536)
            if not block:
                return b"".join(text).decode(errors="replace")
            text.append(block)


def result(text, code, question):
    """The figures, which are the last line of JSON that the child printed."""
    found = [line for line in text.splitlines() if line.startswith(load_child.MARK)]
    if code == 0 and found:
        return json.loads(found[-1][len(load_child.MARK) :])
    name = question["module"]
    tail = last(text.splitlines())
    if code == 0:
        raise HostError(f"{name} ended without its figures. Its last lines:\n{tail}")
    raise HostError(
        f"{name} did not end within {question['limit_seconds']} s, or failed ({code}). "
        f"Its last lines:\n{tail}"
    )


def child(instance, question):
    """The interpreter of the release, with a program that runs the module with the key."""
    end = instance["endpoint"]
    relay = {"port": RELAY_PORT, "socket": end["socket"]} if end["socket"] else None
    document = {
        name: question[name] for name in ("module", "arguments", "key_variable", "result_file")
    }
    source = Path(load_child.__file__)
    text = load_child.__loader__.get_source(load_child.__name__) or source.read_text()
    return [question["python"], "-c", text, json.dumps({**document, "relay": relay})]


def program_unit(instance, unit, question):
    """Command line of the unit of a load generator, with a time limit.

    A server on a unix socket answers its own user alone; its unit has no network, nor has this one.
    """
    own = ["PrivateNetwork=no"]
    if instance["endpoint"]["socket"]:
        user = show(instance["unit"], "User")["User"] or instance["unit"].rpartition(".")[0]
        own = [f"User={user}"]
    limits = (
        "PrivateTmp=yes", "ProtectSystem=strict", "LimitNOFILE=65536", "TimeoutStopSec=10",
        f"RuntimeMaxSec={question['limit_seconds']}",
    )  # fmt: skip
    return transient(instance, unit, properties=(*own, *limits), options=("--setenv=HOME=/tmp",))
