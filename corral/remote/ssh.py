"""The ssh(1) command line for a host, from the same keys of host data as pyinfra's."""

from __future__ import annotations

import re
import shlex

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.remote.root import as_root

CONNECT_TIMEOUT_SECONDS = 10

# pyinfra's keys of host data -> options of ssh(1).
_OPTIONS = {
    "ssh_user": "User",
    "ssh_port": "Port",
    "ssh_key": "IdentityFile",
    "ssh_known_hosts_file": "UserKnownHostsFile",
}
_PLAIN = re.compile(r"[\w./:,@+-]+", re.ASCII)


# A connection of its own: one that is shared would forward beyond its end. The reason of a failed
# forwarding is an informational message.
_FORWARDING = (
    *("-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "LogLevel=INFO"),
    *("-o", "ExitOnForwardFailure=yes"),
)


def ssh_command(
    host: Host, command: list[str], *, forward: str | None = None, back: str | None = None
) -> list[str]:
    """The command line that runs a command on a host, as root where host data says how.

    + forward: ``HERE:THERE`` as of ssh's option -L, for as long as the command runs
    + back: ``THERE:HERE`` as of its option -R, likewise

    @local is pyinfra's name for its own machine, which needs no ssh.
    """
    data = host.data
    command = as_root(data, command)
    if host.name == "@local":
        return command
    options = {name: data[key] for key, name in _OPTIONS.items() if data.get(key)}
    options["StrictHostKeyChecking"] = data.get("ssh_strict_host_key_checking") or "accept-new"
    options |= {"BatchMode": "yes", "ConnectTimeout": CONNECT_TIMEOUT_SECONDS, "LogLevel": "ERROR"}
    # Notice a cut link after half a minute, not after hours.
    options |= {"ServerAliveInterval": 10, "ServerAliveCountMax": 3}
    if data.get("ssh_key"):
        options["IdentitiesOnly"] = "yes"
    config = ["-F", str(data["ssh_config_file"])] if data.get("ssh_config_file") else []
    flags = [flag for name, value in options.items() for flag in ("-o", f"{name}={value}")]
    # Of an option that is given twice ssh takes the first.
    wanted = [part for flag, way in (("-L", forward), ("-R", back)) if way for part in (flag, way)]
    forwarding = [*_FORWARDING, *wanted] if wanted else []
    return [
        "ssh",
        *forwarding,
        *config,
        *flags,
        "--",
        address_of(host),
        " ".join(map(quoted, command)),
    ]


def not_runnable(host: Host, error: OSError) -> CorralError:
    """The error where the program that reaches a host, such as ssh(1), cannot be run here."""
    step = f"check that `{ssh_command(host, [])[0]}` can be run here"
    return CorralError(host.name, str(error), step)


def typed_command(host: Host) -> str:
    """The ssh command for an operator to type, to find out why a host is not reached."""
    data = host.data
    if host.name == "@local":
        return " ".join(map(typed, as_root(data, ["true"])))
    config = ["-F", str(data["ssh_config_file"])] if data.get("ssh_config_file") else []
    flags = [
        argument
        for key, flag in (("ssh_key", "-i"), ("ssh_port", "-p"))
        if data.get(key)
        for argument in (flag, str(data[key]))
    ]
    if data.get("ssh_key"):
        flags += ["-o", "IdentitiesOnly=yes"]
    if data.get("ssh_known_hosts_file"):
        flags += ["-o", f"UserKnownHostsFile={data['ssh_known_hosts_file']}"]
    if data.get("ssh_strict_host_key_checking"):
        flags += ["-o", f"StrictHostKeyChecking={data['ssh_strict_host_key_checking']}"]
    user = f"{data['ssh_user']}@" if data.get("ssh_user") else ""
    return " ".join(map(typed, ["ssh", *config, *flags, f"{user}{address_of(host)}"]))


def address_of(host: Host) -> str:
    """The name that ssh connects to."""
    return str(host.data.get("ssh_hostname") or host.name)


def known_hosts_name(host: Host) -> str:
    """The name of a host in files of known hosts."""
    port = host.data.get("ssh_port")
    address = address_of(host)
    return f"[{address}]:{port}" if port and str(port) != "22" else address


def typed(argument: str) -> str:
    """An argument, quoted for a shell where needed, to be typed by an operator."""
    # A shell expands a bare tilde, as ssh itself does in an option.
    plain = re.fullmatch(r"[\w./:,@+=~-]+", argument, re.ASCII)
    return argument if plain else shlex.quote(argument)


def quoted(argument: str) -> str:
    """An argument, quoted for any login shell of a host.

    In single quotes a POSIX shell keeps backslashes and fish does not; outside of quotes both read
    an escaped quote or backslash the same way.
    """
    if _PLAIN.fullmatch(argument):
        return argument
    inner = re.sub(r"(['\\])", r"'\\\1'", argument)
    return f"'{inner}'"
