"""Where the parts of a backup are on this controller, by names that another controller knows, too.

A part is named by what it is (``keys/HOST/...``), never by a path: the restoring controller's own
inventories say where it belongs, so that a backup writes nowhere else.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corral.errors import CorralError
from corral.files import reading
from corral.inventory.hosts import Host
from corral.lock.requirements import FOLDER
from corral.paths import default_keys_folder, default_keys_journal, default_rollouts_folder
from corral.project import LOCK_FILE
from corral.remote.ssh import known_hosts_name
from corral.store.api_keys import key_path
from corral.store.engine_archives import archives_folder

_SEE = "check that it can be read, then run the same command again"
SECRET, PLAIN = 0o600, 0o644
# Parts whose lines are added to a file; all others are files of their own.
KNOWN_HOSTS = "known-hosts"


@dataclass(frozen=True)
class Place:
    """A folder or a file of the controller, under the name that it has in backups.

    + is_file: a single file; + mode: of its files
    """

    name: str
    path: Path
    is_file: bool = False
    mode: int = PLAIN

    def files(self) -> Iterator[tuple[str, Path]]:
        """Pairs of name in the backup and path, of regular files. Raises CorralError."""
        with reading(self.path, next_step=_SEE):
            if self.is_file:
                if self.path.is_file():
                    yield self.name, self.path
                return
            for path in sorted(self.path.rglob("*")) if self.path.is_dir() else ():
                if path.is_file() and not path.is_symlink():
                    yield f"{self.name}/{path.relative_to(self.path).as_posix()}", path


def places(root: Path, hosts: Sequence[Host], *, archives: bool) -> list[Place]:
    """All places of this controller; of two that are equal the first counts.

    + archives: with the archives of engine releases. Raises CorralError.
    """
    found = [
        Place("lock", root / LOCK_FILE, is_file=True),
        Place("lock.d", root / FOLDER),
        Place("journals", default_rollouts_folder()),
        Place("keys-journal", default_keys_journal(), is_file=True, mode=SECRET),
    ]
    for host in hosts:
        found.append(Place(f"keys/{host.name}", key_path(host, "any").parent, mode=SECRET))
        if path := certificate_path(host):
            found.append(Place(f"certificates/{host.name}", path, is_file=True, mode=SECRET))
        if archives:
            found.append(Place(f"archives/{host.name}", archives_folder(host)))
    # Of hosts that no inventory names, or names no more.
    found.append(Place("keys-folder", default_keys_folder(), mode=SECRET))
    return list({place.path: place for place in reversed(found)}.values())[::-1]


def certificate_path(host: Host) -> Path | None:
    """The file with a gateway's certificate and its private key."""
    spec = host.spec.gateway
    if spec is None or spec.tls_certificate is None:
        return None
    return Path(spec.tls_certificate).expanduser()


def known_hosts_path(host: Host) -> Path:
    """The file in which ssh looks for the key of a host."""
    named = host.data.get("ssh_known_hosts_file")
    return Path(str(named)).expanduser() if named else Path.home() / ".ssh" / "known_hosts"


def known_lines(host: Host) -> list[str]:
    """The lines of its known hosts file that are about a host, by ssh-keygen(1)."""
    path = known_hosts_path(host)
    if host.name == "@local" or not path.is_file():
        return []
    command = ["ssh-keygen", "-F", known_hosts_name(host), "-f", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CorralError("ssh-keygen", str(error), "install openssh-client") from error
    return [line for line in done.stdout.splitlines() if line and not line.startswith("#")]
