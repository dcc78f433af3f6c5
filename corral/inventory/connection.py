"""Keys of host data that belong to pyinfra: connection, and how a login becomes root."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# pyinfra 3.10: pyinfra.connectors.ssh.ConnectorData.
SSH_KEYS = (
    "ssh_hostname", "ssh_port", "ssh_user", "ssh_password", "ssh_key", "ssh_key_password",
    "ssh_allow_agent", "ssh_look_for_keys", "ssh_forward_agent", "ssh_config_file",
    "ssh_known_hosts_file", "ssh_strict_host_key_checking", "ssh_paramiko_connect_kwargs",
    "ssh_connect_retries", "ssh_connect_retry_min_delay", "ssh_connect_retry_max_delay",
    "ssh_file_transfer_protocol",
)  # fmt: skip
# pyinfra 3.10: pyinfra.api.arguments.all_global_arguments.
ARGUMENTS = (
    "_sudo", "_sudo_user", "_use_sudo_login", "_sudo_password", "_preserve_sudo_env", "_su_user",
    "_use_su_login", "_preserve_su_env", "_su_shell", "_su_password", "_doas", "_doas_user",
    "_dzdo", "_dzdo_user", "_shell_executable", "_chdir", "_env", "_success_exit_codes", "_timeout",
    "_get_pty", "_stdin", "_retries", "_retry_delay", "_retry_until", "_temp_dir", "_ignore_errors",
    "_continue_on_error", "_if", "_parallel", "_run_once", "_serial",
)  # fmt: skip
# Prefixes of other connectors, which check their own keys.
_OTHERS = ("docker_", "winrm_", "podman_", "chroot_", "local_", "vagrant_", "terraform_")


def problem(key: str, own: Iterable[str]) -> str | None:
    """What is wrong with a key of host data that looks like one of Corral's or pyinfra's.

    None for a correct key, and for one of the user's own. + own: Corral's keys
    """
    known = (*own, *SSH_KEYS, *ARGUMENTS)
    if key in known or key.startswith(_OTHERS):
        return None
    # pyinfra's command line calls `_sudo` `sudo`.
    meant = [name for name in known if f"_{key}" == name]
    is_pyinfras = key.startswith(("ssh_", "_"))
    close = meant or difflib.get_close_matches(key, known, n=1, cutoff=0.6 if is_pyinfras else 0.8)
    if close:
        return f'unknown key "{key}" (did you mean "{close[0]}"?)'
    if is_pyinfras:
        names = SSH_KEYS if key.startswith("ssh_") else ARGUMENTS
        return f'unknown key "{key}" with a prefix of pyinfra\'s keys (known: {", ".join(names)})'
    return None
