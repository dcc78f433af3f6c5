"""Runs inside a unit and network of its own: starts a server, asks it, prints its figures.

The document comes on standard input, so that its key is in no argument list. The unit's folder
/tmp is private, where the server finds that key.
"""

import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time

# Of the line with the figures, among whatever the server prints.
MARK = "corral-tune "
EVENT = "data: "
PAUSE_SECONDS = 0.2
STOP_SECONDS = 10
# Before anything counts: kernels are chosen and caches filled by the first request.
WARM_TOKENS = 16
# A reply that is not valid text is refused by one engine; another prompt gives another reply.
TRIES = 3


class ServerError(Exception):
    """The server did not start, or did not answer."""


def main(document):
    with open(os.open(document["key_file"], os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(document["key_document"])
    # What the server prints goes to standard error: its tail tells why it failed.
    server = subprocess.Popen(
        document["argv"], stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr
    )
    try:
        wait(document, server)
        found = figures(document)
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    print(f"\n{MARK}{json.dumps(found)}", flush=True)


def wait(document, server):
    """Until the server is ready; it may answer a health check long before it answers anything."""
    deadline = time.monotonic() + document["ready_seconds"]
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ServerError(f"the server ended with {server.returncode}")
        try:
            if asked(document, "GET", document["health"], None, 5)[0] == 200:
                return
        except (OSError, http.client.HTTPException):
            # Nobody listens yet, or it loads and does not answer.
            pass
        time.sleep(PAUSE_SECONDS)
    raise ServerError(f"not ready within {document['ready_seconds']} s")


def asked(document, method, path, body, seconds):
    link = http.client.HTTPConnection("127.0.0.1", document["port"], timeout=seconds)
    try:
        link.request(method, path, body, headers(document))
        answer = link.getresponse()
        return answer.status, answer.read()
    finally:
        link.close()


def headers(document):
    return {"Authorization": f"Bearer {document['key']}", "Content-Type": "application/json"}


def figures(document):
    """Seconds of prompts and answers by length, and to the first token at a load.

    ``lengths``: tokens of prompts; ``answer_tokens``, ``repeat`` (requests of each length),
    ``concurrency`` (requests at once, of the first length).
    """
    lengths, answer = document["lengths"], document["answer_tokens"]
    complete(document, lengths[0], WARM_TOKENS)
    rows = []
    for _ in range(document["repeat"]):
        rows += [(length, complete(document, length, answer)) for length in lengths]
    found = []
    for length in lengths:
        own = [times for of, times in rows if of == length]
        found.append({
            "prompt_tokens": length,
            "first_token_seconds": mean([first for first, _, _ in own]),
            "answer_tokens_per_second": mean([speed for _, speed, _ in own]),
        })  # fmt: skip
    return {"lengths": found, "load": load(document, lengths[0], answer)}


def load(document, length, answer):
    """Requests at once: mean time to the first token, and tokens/s of all answers together."""
    results, faults = [], []

    def one():
        try:
            results.append(complete(document, length, answer))
        except (OSError, http.client.HTTPException, ServerError) as fault:
            faults.append(fault)

    began = time.monotonic()
    threads = [threading.Thread(target=one) for _ in range(document["concurrency"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return {
        "requests": document["concurrency"],
        "first_token_seconds": mean([first for first, _, _ in results]),
        "tokens_per_second": sum(n for _, _, n in results) / (time.monotonic() - began),
    }


def mean(values):
    return sum(values) / len(values)


def complete(document, length, answer):
    """Seconds to the first token, tokens/s of the others, and their number, of one request."""
    fault = None
    for _ in range(TRIES):
        try:
            return streamed(document, length, answer)
        except ServerError as error:
            fault = error
    raise fault


def streamed(document, length, answer):
    # Another prompt each time, so that no cache has its beginning.
    prompt = random.SystemRandom().choices(document["tokens"], k=length)
    body = {
        "model": document["alias"], "prompt": prompt,
        "max_tokens": answer, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True}, **document["fields"],
    }  # fmt: skip
    link = http.client.HTTPConnection("127.0.0.1", document["port"], timeout=document["seconds"])
    try:
        began = time.monotonic()
        link.request("POST", "/v1/completions", json.dumps(body), headers(document))
        reply = link.getresponse()
        if reply.status != 200:
            raise ServerError(f"{reply.status}: {reply.read()[:500].decode(errors='replace')}")
        times, counted = events(reply, began)
    finally:
        link.close()
    tokens = counted or answer
    if len(times) < 2 or tokens < 2:
        raise ServerError(f"{len(times)} parts of an answer came, of {tokens} tokens")
    return times[0], (tokens - 1) / max(times[-1] - times[0], 1e-6), tokens


def events(reply, began):
    """When each part of the answer came, and the number of its tokens if the server says it."""
    times, counted = [], 0
    for line in reply:
        text = line.decode(errors="replace").strip()
        if not text.startswith(EVENT) or text == f"{EVENT}[DONE]":
            continue
        found = json.loads(text[len(EVENT) :])
        counted = (found.get("usage") or {}).get("completion_tokens") or counted
        if any(choice.get("text") for choice in found.get("choices") or ()):
            times.append(time.monotonic() - began)
    return times, counted


if __name__ == "__main__":
    main(json.loads(sys.stdin.readline()))
