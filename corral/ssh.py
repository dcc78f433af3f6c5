"""The ssh(1) command that runs words on a host, by the same keys of host data as pyinfra's."""

from __future__ import annotations

import re

from corral.inventory import Host

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
    return ["ssh", *config, *flags, "--", address, " ".join(map(quoted, [*sudo, *words]))]


def quoted(word: str) -> str:
    """A word for the login shell of a host, whichever that is.

    Between quotes a POSIX shell takes backslashes as they are and fish does not; outside of them
    both read an escaped quote or backslash alike.
    """
    if _PLAIN.fullmatch(word):
        return word
    inner = re.sub(r"(['\\])", r"'\\\1'", word)
    return f"'{inner}'"
