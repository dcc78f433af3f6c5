"""Reach a host with the system's ssh, by the same keys of host data that pyinfra reads."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from corral.errors import CorralError
from corral.helper import BOOTSTRAP, encoded
from corral.inventory import Host
from corral.project import helper_package, project_root

CONNECT_TIMEOUT_SECONDS = 10

# pyinfra's keys of host data -> options of ssh(1).
_OPTIONS = {
    "ssh_user": "User",
    "ssh_port": "Port",
    "ssh_key": "IdentityFile",
    "ssh_known_hosts_file": "UserKnownHostsFile",
}

T = TypeVar("T")
R = TypeVar("R")


def ssh_command(host: Host, words: list[str]) -> list[str]:
    """The argument list that runs ``words`` on a host, as root where the inventory says sudo.

    @local is pyinfra's name for the machine that it runs on, which needs no ssh.
    """
    data = host.data
    sudo = ["sudo", "-n", "--"] if data.get("_sudo") else []
    if host.name == "@local":
        return [*sudo, *words]
    options = {name: data[key] for key, name in _OPTIONS.items() if data.get(key)}
    options["StrictHostKeyChecking"] = data.get("ssh_strict_host_key_checking") or "accept-new"
    options |= {"BatchMode": "yes", "ConnectTimeout": CONNECT_TIMEOUT_SECONDS, "LogLevel": "ERROR"}
    # A link that is cut is noticed after half a minute, not after hours.
    options |= {"ServerAliveInterval": 10, "ServerAliveCountMax": 3}
    if data.get("ssh_key"):
        options["IdentitiesOnly"] = "yes"
    config = ["-F", str(data["ssh_config_file"])] if data.get("ssh_config_file") else []
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    address = str(data.get("ssh_hostname") or host.name)
    return ["ssh", *config, *flags, "--", address, shlex.join([*sudo, *words])]


def call_helper(host: Host, command: str, plan_json: str) -> Any:
    """Run the helper of this checkout on a host and give its answer. Raises CorralError.

    The helper travels on standard input: a host with an older one, or none, answers as well.
    """
    words = ["python3", "-c", BOOTSTRAP, command, plan_json]
    done = subprocess.run(
        ssh_command(host, words),
        input=encoded(helper_package(project_root())),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        what, _, told = reason.partition(" Next: ")
        next_step = told or f"see that `ssh {host.name}` works, or deploy the host"
        raise CorralError(host.name, what, next_step)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError as error:
        what = f"no JSON in the answer: {done.stdout[:80]!r}"
        raise CorralError(host.name, what, "keep shell start-up files silent there") from error


def run_on(host: Host, words: list[str]) -> int:
    """Run a command on a host with this terminal's input and output; gives its exit code."""
    return subprocess.run(ssh_command(host, words), check=False).returncode


def on_all(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Do the same for many hosts at a time, answers in the order of ``items``."""
    with ThreadPoolExecutor(max_workers=20) as pool:
        return list(pool.map(work, items))
