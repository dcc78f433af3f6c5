"""The smoke run: the server of a release must serve a tiny model, and only with its key."""

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import time
import zipfile
from pathlib import Path

from corral_host import engines
from corral_host.nvidia import nvidia_smi
from corral_host.server.http import call, chat, health
from corral_host.system.commands import (
    FAULTS,
    TAIL_LINES,
    HostError,
    digest_or_none,
    say,
    what_is_wrong,
    write_atomic,
)
from corral_host.system.unprivileged import as_owner_of, give

END_SECONDS = 10
TOKENS = 24


def smoke(release, folder, environment):
    """Run the server of ``folder``; returns a summary of its answer, and its log."""
    engine = engines.of(release)
    gpu = free_gpu(engine) if release["backend"] == "cuda" else None
    if release["backend"] == "cuda" and not gpu and not engine.cuda_on_cpu:
        say("no smoke run: this release runs on GPUs alone; the gate of an instance tries it")
        return "not tried: no GPU was free", ""
    home = Path(environment["HOME"])
    model = own_copy(checked_model(release["smoke_model"]), home / engine.smoke_model)
    endpoint = {"socket": None, "address": "127.0.0.1", "port": free_port()}
    instance = {"endpoint": endpoint, "alias": "smoke"}
    # Hexadecimal: vLLM takes a key that begins with a dash for a flag.
    key, log = secrets.token_hex(32), home / "log"
    key_file = home / engine.key_name
    give_key(key_file, engine.key_document([key]))
    argv = engine.smoke_arguments(engine.server(folder), model, key_file, endpoint, bool(gpu))
    # Sockets and other temporary files end with the home.
    environment = {**environment, "TMPDIR": str(home), **visible(gpu)}
    with running(argv, environment, log) as process:
        try:
            wait_ready(process, instance, engine.ready_seconds)
            tokens = answered(instance, key)
        except FAULTS as fault:
            raise HostError(
                f"the smoke run of {release['engine']} failed: {what_is_wrong(fault)}. {tail(log)}"
            ) from fault
    return f"{tokens} tokens on {name(gpu)}", log.read_text(errors="replace")


def checked_model(model):
    if digest_or_none(model["path"]) != model["sha256"]:
        raise HostError(
            f"{model['path']}, the model of the smoke run, is missing or differs from the plan",
            "run the deploy again, which puts it there",
        )
    return model["path"]


def own_copy(model, copy):
    """Copy the model for the home's owner, who cannot enter the folder of archives.

    A model of several files is an archive, which becomes a folder.
    """
    if not model.endswith(".zip"):
        shutil.copyfile(model, copy)
        give(copy, copy.parent)
        return copy
    with zipfile.ZipFile(model) as archive:
        archive.extractall(copy)
    for path in (copy, *copy.iterdir()):
        give(path, copy.parent)
    return copy


def give_key(path, document):
    write_atomic(path, document, mode=0o600)
    give(path, path.parent)


def free_gpu(engine):
    """The GPU with most free memory for a tiny model; None if the smoke run must use the CPU."""
    gpus = nvidia_smi.ask()["gpus"]
    least = engine.smoke_gpu_mib
    room = [gpu for gpu in gpus if (gpu["memory_free_mib"] or 0) >= least]
    if not room:
        why = f"no GPU has {least >> 10} GiB free" if gpus else "there is no GPU here"
        say(f"no GPU for the smoke run: {why}")
    return max(room, key=lambda gpu: gpu["memory_free_mib"], default=None)


def visible(gpu):
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": gpu["uuid"] if gpu else "",
    }


def name(gpu):
    return f"CUDA{gpu['index']}" if gpu else "CPU"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def running(argv, environment, log):
    with open(log, "wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=environment, cwd=environment["HOME"], **as_owner_of(environment["HOME"]),
        )  # fmt: skip
    try:
        yield process
    finally:
        end(process)


def end(process):
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_ready(process, instance, seconds):
    deadline, answer = time.monotonic() + seconds, "nothing yet"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise HostError(f"the server ended at start with exit code {process.returncode}")
        answer = health(instance)
        if answer == "200":
            return
        time.sleep(0.1)
    raise HostError(f"not ready within {seconds} s (last answer: {answer})")


def answered(instance, key):
    """Number of tokens that the server generates with its key; without it, it must refuse."""
    body = {**chat(instance), "max_tokens": TOKENS}
    code, _ = call(instance, "POST", "/v1/chat/completions", body)
    if code != 401:
        raise HostError(f"a completion without a key was answered {code}, not 401")
    code, text = call(instance, "POST", "/v1/chat/completions", body, key=key)
    tokens = json.loads(text)["usage"]["completion_tokens"] if code == 200 else 0
    if not tokens:
        raise HostError(f"a completion was answered {code}: {text[:300]}")
    return tokens


def tail(log):
    lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    return "Its last lines:\n" + "\n".join(lines)
