"""Why a host is not reached, in one sentence, and the next step.

Messages of ssh(1) are those of OpenSSH 8.4 to 10 (sshconnect.c).
"""

from __future__ import annotations

import re

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.remote.ssh import address_of, typed, typed_command

_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
_OFFENDING = re.compile(r"^Offending .*key in (.+):([0-9]+)\s*$", re.MULTILINE)
# What known_hosts calls a host: an ssh_config_file may have another address for it.
_NAMED = re.compile(r"^Host key for (\S+) has changed", re.MULTILINE)
_UNKNOWN = re.compile(r"^No \S+ host key is known for (\S+)", re.MULTILINE)
_WITH_PORT = re.compile(r"\[(.+)\]:([0-9]+)")
_FINGERPRINT = re.compile(r"\bSHA256:[A-Za-z0-9+/=]+")


class UnreachedError(CorralError):
    """The host did not answer; jobs there continue. ``reason``: in one line."""

    reason = ""


def unreached(host: Host, message: str) -> UnreachedError:
    """The error for a message of ssh(1) on its standard error, or for another reason."""
    reason, step = _reason_and_step(host, message)
    error = UnreachedError(host.name, f"not reached ({reason})", step)
    error.reason = reason
    return error


def check_ssh(host: Host) -> str:
    """A next step, to be completed."""
    return f"check that `{typed_command(host)}` works"


def _reason_and_step(host: Host, message: str) -> tuple[str, str]:
    if _CHANGED in message:
        return _changed(host, message)
    if _UNKNOWN.search(message) or message.strip() == "Host key verification failed.":
        return _unknown(host, message)
    lines = [line.strip() for line in message.splitlines() if line.strip().strip("@")]
    step = f"{check_ssh(host)}, then run the same command again"
    return "; ".join(lines[-3:]) or "no reason given", step


def _changed(host: Host, message: str) -> tuple[str, str]:
    offending, fingerprint = _OFFENDING.search(message), _FINGERPRINT.search(message)
    where = f"line {offending[2]} of {offending[1]}" if offending else "the known_hosts file"
    now = f", but {fingerprint[0]}" if fingerprint else ""
    file = offending[1] if offending else _known_hosts(host)
    reason = (
        f"its host key is not the one in {where}{now}: it was reinstalled, or another machine "
        "answers at its address"
    )
    step = (
        "on its console, compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`; if it is "
        f"the host, `ssh-keygen -f {file} -R {_entry(host, message)}`, then `{typed_command(host)}`"
    )
    return reason, step


def _unknown(host: Host, message: str) -> tuple[str, str]:
    file = _known_hosts(host)
    named = _UNKNOWN.search(message)
    with_port = _WITH_PORT.fullmatch(_name(host, named))
    address, port = with_port.groups() if with_port else (_name(host, named), "")
    scan = f"`ssh-keyscan {f'-p {port} ' if port else ''}{typed(address)} >> {file}`"
    return (
        f"its host key is not in {file}, and unknown keys are refused",
        f"{scan}, compare the fingerprints (`ssh-keygen -lf {file}`) with those on its console, "
        f"then {check_ssh(host)}",
    )


def _known_hosts(host: Host) -> str:
    return str(host.data.get("ssh_known_hosts_file") or "~/.ssh/known_hosts")


def _entry(host: Host, message: str) -> str:
    return typed(_name(host, _NAMED.search(message)))


def _name(host: Host, found: re.Match[str] | None) -> str:
    """The name in the message of ssh, else by the host's data."""
    if found:
        return found[1]
    port, address = host.data.get("ssh_port"), address_of(host)
    return f"[{address}]:{port}" if port and str(port) != "22" else address
