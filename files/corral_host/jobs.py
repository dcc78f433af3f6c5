"""Jobs in transient units, which a dropped connection or a killed controller does not affect.

Jobs of one name follow each other. Each has an id, its run, by which the controller that started it
recognizes its result and its report. Jobs of earlier versions have none.
"""

import contextlib
import fcntl
import importlib
import json
import os
import secrets
import sys
import time
from pathlib import Path

from corral_host.activation import confirm, journal, record, watchdog
from corral_host.activation.watchdog import GoingDownError
from corral_host.instance.history import instance_folder
from corral_host.release.limits import build_properties
from corral_host.system.commands import (
    FAULTS,
    TAIL_LINES,
    HostError,
    as_fault,
    output,
    read_json,
    say,
    sentence,
    show,
    write_atomic,
)
from corral_host.system.locks import lock_file

JOBS = Path("/var/lib/corral/jobs")
NO_RESULT = HostError(
    "it ended without a result (killed, or a reboot)", "run the same deploy again"
)
POLL_SECONDS = 5
# Between two looks at a job's files, and between two questions to systemd, which cost far more.
PAUSE_SECONDS, UNIT_SECONDS = 0.1, 1
# Name of the systemd credential with the token of a job.
CREDENTIAL = "hub-token"


def later(module, function):
    """A function of the helper whose module is imported when it is called.

    A job is started once and polled many times, and most modules are for one kind of job.
    """

    def call(*arguments):
        return getattr(importlib.import_module(f"corral_host.{module}"), function)(*arguments)

    return call


# Kind of a job -> its function, which takes the job's spec and returns its answer.
KINDS = {
    "build": later("release.build", "build"),
    "pack": later("release.build", "repack"),
    "install": later("release.archive", "install"),
    "fetch": later("weights.fetch", "fetch"),
    "swarm": later("swarm.member", "take_part"),
    "share": later("swarm.member", "share"),
    "adopt": later("weights.adopt_folder", "adopt_folder"),
    "drivers": later("nvidia.drivers", "set_up"),
    "bench": later("bench.measure", "bench"),
    "tune": later("bench.tune", "tune"),
    "trial": later("fit.trial", "trial"),
}
# Kinds that fetch from the hub, for which the job's token is.
FETCHING = ("fetch", "swarm", "trial")
# The same for activations; these functions also take the current operator and the run.
SWITCHES = {
    "activate": later("activation.activate", "activate"),
    "revert": later("activation.revert", "revert_generation"),
}
settle_swarm = later("swarm.member", "settle")
# Kind -> what a swarm brings, by the key of its spec.
SWARMS = {"swarm": "shards", "share": "archives"}
# Kinds that may stop a server meanwhile, which is started again whatever became of the job.
settle_bench = later("bench.measure", "settle_bench")
STOPPING = ("bench", "tune")
settle_activation = later("activation.rollback", "settle")
# The archive that this program runs from.
HELPER = os.path.abspath(sys.argv[0])


def job_unit(name):
    return f"corral-job-{name}.service"


def is_running(name):
    """Whether a job's unit runs or stops: a job that died is settled before it counts as ended."""
    return show(job_unit(name), "ActiveState")["ActiveState"] not in ("inactive", "failed")


def start(name, job):
    """Start a job, or join it if the same one runs already."""
    folder, token = JOBS / name, job.pop("token", None)
    with lock_file(folder / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_running(name):
            return join(name, job)
        for stale in ("result.json", "log"):
            with contextlib.suppress(FileNotFoundError):
                (folder / stale).unlink()
        started = {**job, "run": secrets.token_hex(8)}
        write_atomic(folder / "job.json", json.dumps(started, sort_keys=True), mode=0o600)
        with lent(token) as properties:
            launch(name, job["kind"], properties)
    return {"joined": False, "run": started["run"]}


def join(name, job):
    running = read_json(JOBS / name / "job.json") or {}
    if work_of(running) != work_of(job):
        raise HostError(
            f"{name}: another one is running here, started by {running.get('by', 'somebody')} at "
            f"{running.get('at', 'an unknown time')}",
            f"wait for it (journalctl -fu {job_unit(name)}), then run the deploy again",
        )
    return {"joined": True, "by": running.get("by"), "run": running.get("run")}


def work_of(job):
    """What a job does: of those with the same work, one is enough.

    A swarm brings the same files, whichever hosts take part when it is asked for again.
    """
    kind, spec = job.get("kind"), job.get("spec")
    return (kind, spec[SWARMS[kind]]) if kind in SWARMS else spec


@contextlib.contextmanager
def lent(token):
    """Unit properties that pass the token to a job; it is in no file and ends with the unit.

    systemd reads it from this process's memory, so this process must live until the unit starts.
    """
    if not token:
        yield ()
        return
    with os.fdopen(os.memfd_create("credential"), "w") as memory:
        memory.write(token)
        memory.flush()
        place = f"/proc/{os.getpid()}/fd/{memory.fileno()}"
        yield ("Type=exec", f"LoadCredential={CREDENTIAL}:{place}")


def token_of_this_job():
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere")) / CREDENTIAL
    return path.read_text() if path.is_file() else None


def launch(name, kind, properties=()):
    """Start a job's unit, with lower CPU and disk weight than the servers."""
    log = JOBS / name / "log"
    properties = (
        *properties,
        f"StandardOutput=append:{log}",
        f"StandardError=append:{log}",
        "Nice=10",
        "CPUWeight=20",
        "IOWeight=20",
        "OOMScoreAdjust=800",
        f"ExecStopPost={sys.executable} {HELPER} settle {name}",
        *(build_properties() if kind == "build" else ()),
        # A revert may take as long as loading a model.
        *(("TimeoutStopSec=infinity",) if kind in SWITCHES else ()),
    )
    options = [part for value in properties for part in ("--property", value)]
    log.touch(mode=0o600)
    output(
        "systemd-run", "--quiet", "--collect", f"--unit={job_unit(name)}", *options,
        sys.executable, HELPER, "run", name,
    )  # fmt: skip


def poll(name, offset):
    """Progress of a job: the end of its log once that exceeds ``offset`` bytes, or its result."""
    log, began, asked = JOBS / name / "log", time.monotonic(), -UNIT_SECONDS
    while True:
        # Systemd is asked before the result is read: a job writes it before it ends.
        if time.monotonic() >= asked + UNIT_SECONDS:
            alive, asked = is_running(name), time.monotonic()
        run_id, result = found(name)
        size = log.stat().st_size if log.exists() else 0
        waited = time.monotonic() - began
        if result or not alive or waited > (1 if size > offset else POLL_SECONDS):
            break
        if confirm.waits(name):
            break
        time.sleep(PAUSE_SECONDS)
    return {
        "run": run_id,
        "running": alive and not result,
        "ok": bool(result and result["ok"]),
        "error": result["error"] if result else str(NO_RESULT),
        "fault": result.get("fault") if result else as_fault(NO_RESULT),
        "answer": result.get("answer") if result else None,
        "offset": size,
        "tail": tail(log),
        "phase": record.phase_of(name) if alive and not result else None,
        "unsettled": is_unsettled(name),
        "unsettled_run": unsettled_run(name),
    }


def found(name):
    """The run of a job, and its result if there is one of that run."""
    run_id = (read_json(JOBS / name / "job.json") or {}).get("run")
    result = read_json(JOBS / name / "result.json")
    return run_id, result if result and result.get("run") == run_id else None


def is_unsettled(name):
    """Whether a job's activation is unfinished, so that its report will come when it is settled."""
    job = read_json(JOBS / name / "job.json")
    if not job or job["kind"] not in SWITCHES:
        return False
    return journal.journal(switched_folder(job)).exists() and unsettled_run(name) == job.get("run")


def unsettled_run(name):
    """Run of the unfinished activation of a job's instance: of this job, or of an earlier one."""
    job = read_json(JOBS / name / "job.json")
    return journal.run_of(switched_folder(job)) if job and job["kind"] in SWITCHES else None


def tail(log):
    with contextlib.suppress(FileNotFoundError), open(log, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 16384))
        return file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
    return []


def run(name):
    job = read_json(JOBS / name / "job.json")
    fault, answer = None, None
    try:
        answer = work(job)
    except GoingDownError as error:
        # No result yet: the guard writes it after the boot.
        say(str(error))
        return 1
    except (HostError, OSError) as error:
        fault, answer = as_fault(error), getattr(error, "answer", None)
    write_result(name, job, fault, answer)
    return 1 if fault else 0


def work(job):
    kind, spec = job["kind"], job["spec"]
    if kind in SWITCHES:
        return SWITCHES[kind](spec, job.get("by", "somebody"), job.get("run"))
    if kind in FETCHING:
        spec = {**spec, "token": token_of_this_job(), "by": job.get("by", "somebody")}
    return KINDS[kind](spec)


def write_result(name, job, fault, answer):
    """Write a job's result. ``error`` is the fault as text, for controllers of earlier versions."""
    error = sentence(fault["what"], fault["next_step"]) if fault else ""
    result = {"ok": not fault, "error": error, "fault": fault, "answer": answer}
    write_atomic(JOBS / name / "result.json", json.dumps({**result, "run": job.get("run")}))


def settle(name):
    """After a job's process has ended for any reason: revert or finish what was half done."""
    record.forget_phase(name)
    job = read_json(JOBS / name / "job.json")
    if job and job["kind"] in SWITCHES:
        report = settled(switched_folder(job), job["spec"]["paths"]["units"])
        if report:
            fault = None if report["outcome"] == "kept" else as_fault(HostError(report["reason"]))
            say(f"{report['instance']}: {report['outcome']}. {report['reason']}")
            # This may have settled an earlier job's activation, which is not this job's result.
            if report.get("run") == job.get("run"):
                write_result(name, job, fault, report)
    elif job and job["kind"] in SWARMS:
        settle_swarm(job["spec"])
    elif job and job["kind"] in STOPPING:
        outcome = settle_bench(job["spec"])
        if outcome:
            say(str(outcome))
            write_result(name, job, as_fault(outcome), None)


def settled(folder, units):
    """The report, if there was anything to settle; on a fault the guard goes on."""
    try:
        return settle_activation(folder, units)
    except GoingDownError:
        raise
    except FAULTS:
        watchdog.hurry(units, Path(folder).name)
        raise


def switched_folder(job):
    spec = job["spec"]
    whole = isinstance(spec["instance"], dict)
    return spec["instance"]["folder"] if whole else instance_folder(spec)
