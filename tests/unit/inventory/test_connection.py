"""Keys of host data that say how a host is reached: a typo is told, the user's own are left."""

from __future__ import annotations

import subprocess
import sys

import pytest

from corral.errors import CorralError
from corral.inventory.connection import ARGUMENTS, SSH_KEYS
from corral.inventory.hosts import parse_host
from tests.samples import CHAT, ROOT


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("sudo", "_sudo"), ("sudo_user", "_sudo_user"), ("_sud", "_sudo"), ("doas", "_doas"),
        ("su_user", "_su_user"), ("_sudo_usr", "_sudo_user"), ("ssh_usr", "ssh_user"),
        ("ssh_host", "ssh_hostname"), ("sshuser", "ssh_user"), ("ssh_keyfile", "ssh_key"),
        ("ssh_known_hosts", "ssh_known_hosts_file"), ("ssh_config", "ssh_config_file"),
        ("use_sudo_login", "_use_sudo_login"),
    ],
)  # fmt: skip
def test_a_typo_in_how_a_host_is_reached_names_the_nearest_key(key: str, meant: str) -> None:
    with pytest.raises(CorralError, match="inventories/site.py: lab-1: unknown key") as caught:
        parse_host("lab-1", {key: True, "instances": [CHAT]}, origin="inventories/site.py")
    assert f'(did you mean "{meant}"?)' in caught.value.what


@pytest.mark.parametrize("key", ["ssh_zzz", "_zzz"])
def test_a_key_that_begins_as_pyinfras_names_those_it_has(key: str) -> None:
    with pytest.raises(CorralError, match=f'unknown key "{key}" with a prefix of pyinfra'):
        parse_host("lab-1", {key: 1})


@pytest.mark.parametrize("key", [*SSH_KEYS, *ARGUMENTS, "rack", "owner", "docker_identifier"])
def test_keys_of_pyinfra_and_of_the_user_pass(key: str) -> None:
    assert parse_host("lab-1", {key: 1}).data == {key: 1}


def test_the_keys_are_those_of_the_pyinfra_that_is_installed() -> None:
    # In a process of its own: pyinfra patches the one that loads it.
    script = (
        "from pyinfra.api.arguments import all_global_arguments\n"
        "from pyinfra.connectors.ssh import ConnectorData\n"
        "print(*ConnectorData.__annotations__)\n"
        "print(*(name for name, _ in all_global_arguments() if name != 'name'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    ssh, arguments = done.stdout.splitlines()
    assert ssh.split() == list(SSH_KEYS)
    assert arguments.split() == list(ARGUMENTS)
