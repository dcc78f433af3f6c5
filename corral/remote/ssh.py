"""The ssh(1) command that runs words on a host, by the same keys of host data as pyinfra's."""

from __future__ import annotations

import re
import shlex

from corral.inventory.hosts import Host
from corral.remote.root import by_root

CONNECT_TIMEOUT_SECONDS = 10

# pyinfra's keys of host data -> options of ssh(1).
_OPTIONS = {
    "ssh_user": "User",
    "ssh_port": "Port",
    "ssh_key": "IdentityFile",
    "ssh_known_hosts_file": "UserKnownHostsFile",
}
_PLAIN = re.compile(r"[\w./:,@+-]+", re.ASCII)


def ssh_command(host: Host, words: list[str]) -> list[str]:
    """The argument list that runs ``words`` on a host, as root where the inventory says how.

    @local is pyinfra's name for the machine that it runs on, which needs no ssh.
    """
    data = host.data
    words = by_root(data, words)
    if host.name == "@local":
        return words
    options = {name: data[key] for key, name in _OPTIONS.items() if data.get(key)}
    options["StrictHostKeyChecking"] = data.get("ssh_strict_host_key_checking") or "accept-new"
    options |= {"BatchMode": "yes", "ConnectTimeout": CONNECT_TIMEOUT_SECONDS, "LogLevel": "ERROR"}
    # A link that is cut is noticed after half a minute, not after hours.
    options |= {"ServerAliveInterval": 10, "ServerAliveCountMax": 3}
    if data.get("ssh_key"):
        options["IdentitiesOnly"] = "yes"
    config = ["-F", str(data["ssh_config_file"])] if data.get("ssh_config_file") else []
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", *config, *flags, "--", address_of(host), " ".join(map(quoted, words))]


def typed_command(host: Host) -> str:
    """The ssh command that a person types to see what keeps Corral from a host, or so."""
    data = host.data
    if host.name == "@local":
        return " ".join(map(typed, by_root(data, ["true"])))
    config = ["-F", str(data["ssh_config_file"])] if data.get("ssh_config_file") else []
    flags = [
        word
        for key, flag in (("ssh_key", "-i"), ("ssh_port", "-p"))
        if data.get(key)
        for word in (flag, str(data[key]))
    ]
    if data.get("ssh_key"):
        flags += ["-o", "IdentitiesOnly=yes"]
    if data.get("ssh_known_hosts_file"):
        flags += ["-o", f"UserKnownHostsFile={data['ssh_known_hosts_file']}"]
    if data.get("ssh_strict_host_key_checking"):
        flags += ["-o", f"StrictHostKeyChecking={data['ssh_strict_host_key_checking']}"]
    user = f"{data['ssh_user']}@" if data.get("ssh_user") else ""
    return " ".join(typed(word) for word in ["ssh", *config, *flags, f"{user}{address_of(host)}"])


def address_of(host: Host) -> str:
    """The name that ssh connects to."""
    return str(host.data.get("ssh_hostname") or host.name)


def typed(word: str) -> str:
    """As a person types it in a shell."""
    # A shell puts the home folder in place of a bare tilde, as ssh itself does in an option.
    return word if re.fullmatch(r"[\w./:,@+=~-]+", word, re.ASCII) else shlex.quote(word)


def quoted(word: str) -> str:
    """A word for the login shell of a host, whichever that is.

    Between quotes a POSIX shell takes backslashes as they are and fish does not; outside of them
    both read an escaped quote or backslash alike.
    """
    if _PLAIN.fullmatch(word):
        return word
    inner = re.sub(r"(['\\])", r"'\\\1'", word)
    return f"'{inner}'"
