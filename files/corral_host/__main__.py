"""Usage: corral_host.pyz COMMAND [ARGUMENT]. PLAN is a HostPlan as JSON; answers are JSON.
A command that fails ends with 1, and its answer is {"fault": {where, what, next_step}}.

PLAN, RELEASE, PATHS, NAMED, ROLLOUT and QUESTION are documents. They are read from standard input,
as an argument is at most 128 KiB long; a short one may be the argument.

state PLAN           what this host has of PLAN; changes nothing
instances PATHS      the instances on this host, and what runs; PATHS are those of a HostPlan
heal PLAN            make files of PLAN readable for its servers; prints those that were not
gpus PLAN            the part of state about GPUs, drivers and memory
key                  write the api-key file given on standard input
held-keys NAMED      names of the keys that this host has; NAMED: instances, gateway
keys NAMED           these keys themselves, for a controller that lost them
reserve PLAN         from now on only the servers of PLAN can answer from their ports
watch-install PLAN   watch the servers of PLAN between deploys
watch SETTINGS       inside that service: restart servers that do not serve
stage                write the generation given on standard input
prove                compare what the instances on standard input need with the free memory
start JOB            start the job given on standard input, or join it if it already runs
poll JOB OFFSET      wait a moment for progress of a job
manifest RELEASE     the manifest of an installed release, or null
releases PATHS       the releases on this host, with their users; PATHS are those of a HostPlan
prune PLAN           remove releases that nothing uses and PLAN does not name; prints them
check PLAN           compare the running instances with PLAN, by process and by HTTP
ready PLAN           wait until the instances of PLAN answer
baselines PLAN       the baselines (tokens/s) of the instances of PLAN
forget PLAN          remove these baselines; the next generation that is kept makes new ones
rehash PLAN          read all weights again; a corrupt shard loses its receipt
confirm INSTANCE GENERATION   confirm the generation to the activation that waits for it
history PATHS        reports of all activations on this host, newest first
foresee SPEC         how an activation would go now; SPEC is that of its job
generation NAMED     plan, unit, reports and links of one; NAMED: paths, instance, generation
weights PLAN         files of weights here, with who needs them
adopt SPEC           put files of a folder in place that match the lock; SPEC is that of its job
prune-weights PLAN   remove weights that no generation, process or PLAN needs
remove NAMED         stop an instance and remove its unit, generations and keys
remove-all PATHS     remove all that Corral put here, once no instance is left
pin NAMED            keep a generation under a name; unpin removes it. NAMED has that name too
hold ROLLOUT         hold this host for a rollout until standard input ends or falls silent;
                     ROLLOUT is its first line
load SPEC            hold this host for a load test of an instance, as long as standard input lasts:
                     facts about the server, then runs of its engine's load generator
gateway QUESTION     state of the gateway's servers, or change it: drain, ready, weight, save
gateway-stage        stage the generation given on standard input beside the one that runs
gateway-install      switch to it; reverts if its aliases do not answer
gateway-revert       revert the last install, except for the addresses of servers
gateway-place        change the address of one server in the gateway
gateway-installed QUESTION    what the gateway runs, with digests in place of its secrets
gateway-settle QUESTION       revert a generation that was not proved
record-kernel PLAN   note the kernel's command line, with which `drift` compares
metrics DOCUMENT     write figures for node_exporter; DOCUMENT: paths, textfile (a path)
drift DOCUMENT       where this host differs from what was deployed; DOCUMENT: paths
daily DOCUMENT       read weights again, within a budget, and look for drift; as for metrics
monitor-write PLAN   write the files of the monitoring of PLAN
monitor-programs PLAN install the pinned programs of the monitoring of PLAN
monitor-start PLAN   start its units, with its packages installed
monitor-stop PLAN    remove what monitoring put here, except for packages
run JOB, settle JOB  inside a job's transient unit
guard FOLDER UNITS   inside a guard's unit: settle the activation of an instance
"""

import importlib
import json
import os
import sys

from corral_host.system.commands import HostError, as_fault
from corral_host.system.modes import hide_nothing

# Commands that take a document -> their module and function. Only the module of the given command
# is imported, as `state` and `check` run on every host in every deploy.
WITH_DOCUMENT = {
    "state": ("observe.state", "state"),
    "gpus": ("observe.state", "gpus"),
    "instances": ("observe.kept", "instances"),
    "heal": ("system.modes", "heal"),
    "check": ("checks.verify", "check"),
    "held-keys": ("server.held_keys", "held"),
    "keys": ("server.held_keys", "texts"),
    "ready": ("checks.ready", "ready"),
    "baselines": ("checks.baseline", "baselines"),
    "forget": ("checks.baseline", "forget"),
    "rehash": ("weights.fetch", "rehash"),
    "manifest": ("release.manifest", "manifest_of"),
    "releases": ("release.releases", "releases"),
    "prune": ("release.prune", "prune"),
    "reserve": ("packets.reserve", "reserve"),
    "record-kernel": ("observe.boot", "record"),
    "watch-install": ("watch.service", "install"),
    "history": ("instance.history", "history"),
    "generation": ("instance.history", "generation"),
    "foresee": ("activation.activate", "foresee"),
    "weights": ("observe.weights", "weights"),
    "adopt": ("weights.adopt_folder", "adopt_folder"),
    "prune-weights": ("activation.prune_weights", "prune_weights"),
    "remove": ("activation.remove", "remove"),
    "remove-all": ("activation.remove", "remove_all"),
    "pin": ("instance.history", "pin"),
    "unpin": ("instance.history", "unpin"),
    "metrics": ("monitoring.metrics", "metrics"),
    "drift": ("monitoring.drift", "drift"),
    "daily": ("monitoring.daily", "daily"),
    "monitor-write": ("monitoring.install", "write"),
    "monitor-programs": ("monitoring.programs", "install_programs"),
    "monitor-start": ("monitoring.install", "start"),
    "monitor-stop": ("monitoring.install", "stop"),
    "gateway": ("gateway.control", "gateway"),
    "gateway-clients": ("gateway.clients", "clients"),
    "gateway-stage": ("gateway.change", "stage"),
    "gateway-install": ("gateway.change", "install"),
    "gateway-revert": ("gateway.change", "revert_change"),
    "gateway-place": ("gateway.change", "place"),
    "gateway-installed": ("gateway.change", "installed"),
    "gateway-settle": ("gateway.change", "settle"),
}
# Other users would silently get incomplete answers of these.
ROOT_ALONE = (
    "instances",
    "check",
    "ready",
    "held-keys",
    "keys",
    "load",
    "weights",
    "adopt",
    "prune-weights",
    "remove",
    "remove-all",
    "metrics",
    "drift",
    "gateway",
    "gateway-clients",
    "gateway-installed",
)


def module(name):
    return importlib.import_module(f"corral_host.{name}")


def document(arguments):
    """The document of a command: its argument if there is one, else standard input."""
    return parsed(arguments[0] if arguments else sys.stdin.buffer.read())


def first_line(arguments):
    """The document of a command that continues to read standard input after the first line."""
    return parsed(arguments[0] if arguments else sys.stdin.buffer.readline())


def parsed(text):
    try:
        return json.loads(text)
    except ValueError as fault:
        raise HostError(f"its document is not JSON ({fault})", "check what was sent") from fault


def failed(fault):
    """Print a fault: as text on standard error for people, as the answer for the controller."""
    print(fault, file=sys.stderr)
    print(f"\n{json.dumps({'fault': as_fault(fault)})}")
    return 1


def main(arguments):
    """Run one command; returns the exit code."""
    hide_nothing()
    command, rest = (arguments or [""])[0], arguments[1:]
    try:
        if command in ROOT_ALONE and os.geteuid() != 0:
            raise PermissionError("only root may see what runs, and with which keys")
        if command in WITH_DOCUMENT:
            name, function = WITH_DOCUMENT[command]
            answer = getattr(module(name), function)(document(rest))
        elif command == "key":
            answer = module("activation.staging").put_key(document(()))
        elif command == "stage":
            answer = module("activation.staging").stage(document(()))
        elif command == "prove":
            answer = module("fit.prove").prove(document(()))
        elif command == "start":
            answer = module("jobs").start(rest[0], document(rest[1:]))
        elif command == "poll":
            answer = module("jobs").poll(rest[0], int(rest[1]))
        elif command == "confirm":
            answer = module("activation.confirm").confirm(*rest[:2])
        elif command == "guard":
            answer = module("activation.rollback").guard(*rest[:2])
        elif command == "watch":
            module("watch.rounds").watch(rest[0])
        elif command == "hold":
            module("system.locks").hold(first_line(rest))
            return 0
        elif command == "load":
            module("bench.load").load(first_line(rest))
            return 0
        elif command in ("run", "settle"):
            return getattr(module("jobs"), command)(rest[0])
        else:
            raise HostError(f"unknown command {command}\n{__doc__}")
    except HostError as fault:
        return failed(fault)
    except PermissionError as fault:
        if os.geteuid() == 0:
            raise
        return failed(HostError(f"the helper is not root, but user {os.geteuid()}: {fault}"))
    # On a line of its own, whatever start-up files of a shell have printed before.
    print(f"\n{json.dumps(answer)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
