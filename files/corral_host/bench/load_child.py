"""Runs in the interpreter of an engine's release: its load generator, with a key that stays secret.

The key comes on standard input and goes to a variable of this process alone: it is in no argument
list, no unit, no file, and not in /proc/PID/environ, which shows what a process began with. The end
of standard input ends the load test.
"""

import json
import os
import runpy
import socket
import sys
import threading

# Of the line with the figures, among whatever the program prints.
MARK = "corral-load "
# Lists of the result that are kept, if it has them; others have a number or a text for each token.
KEPT_LISTS = ("errors", "output_lens")
MOST_CHARACTERS = 200
CHUNK_BYTES = 65536


def main(document):
    key = sys.stdin.buffer.readline().decode().rstrip("\n")
    if document["relay"]:
        begin_relay(document["relay"])
    threading.Thread(target=end_with_input, daemon=True).start()
    os.environ[document["key_variable"]] = key
    sys.argv = [document["module"], *document["arguments"]]
    try:
        runpy.run_module(document["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
    with open(document["result_file"]) as file:
        found = json.load(file)
    print(f"\n{MARK}{json.dumps(reduced(found))}", flush=True)


def reduced(found):
    """The figures, and a short text of each failure: the last line of a traceback."""
    lists = {name: [last_line(one) for one in found.get(name, ())] for name in KEPT_LISTS}
    return {**{k: v for k, v in found.items() if not isinstance(v, (list, dict))}, **lists}


def last_line(value):
    return (
        value.strip()[-2000:].rpartition("\n")[2][:MOST_CHARACTERS]
        if isinstance(value, str)
        else value
    )


def end_with_input():
    while os.read(0, CHUNK_BYTES):
        pass
    os._exit(1)


def begin_relay(relay):
    """Pass TCP connections on to a unix socket, in a process of its own: the unit ends it."""
    server = socket.create_server(("127.0.0.1", relay["port"]), backlog=1024)
    if os.fork() == 0:
        threading.Thread(target=end_with_parent, daemon=True).start()
        while True:
            link, _ = server.accept()
            threading.Thread(target=pass_on, args=(link, relay["socket"]), daemon=True).start()
    server.close()


def end_with_parent():
    parent = os.getppid()
    while os.getppid() == parent:
        threading.Event().wait(1)
    os._exit(0)


def pass_on(link, path):
    other = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with link, other:
        try:
            other.connect(path)
        except OSError:
            return
        back = threading.Thread(target=copy, args=(other, link), daemon=True)
        back.start()
        copy(link, other)
        back.join()


def copy(source, target):
    try:
        while block := source.recv(CHUNK_BYTES):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One side has hung up: so does the other.
        for one in (source, target):
            one.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
