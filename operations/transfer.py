"""Archives of releases between the controller's store and hosts."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from paramiko import SSHException
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.host import Host

from corral.errors import CorralError
from corral.host.answers import BUILT
from corral.host.reading import as_answer
from corral.plan.release import ReleasePlan
from corral.schema import parse
from corral.store.engine_archives import Archive, ArchiveStore
from operations import job
from operations.connection import arguments
from operations.messages import inform
from operations.metered_file import metered_file

# pyinfra's keys of who a login becomes.
BECOMES = ("_sudo", "_sudo_user", "_doas", "_doas_user", "_dzdo", "_dzdo_user", "_su_user")
ROOT_NAMED = (("_sudo_user", "root"), ("_doas_user", "root"), ("_dzdo_user", "root"))
_NEXT = "Next: see that the disk has room, then run the same deploy again"


def bring_home(
    store: ArchiveStore, release: ReleasePlan, host: Host, answer: dict[str, Any]
) -> bool:
    """Fetch an archive that was packed on a host into the store, then remove it there.

    + answer: of the job that packed it. False when it did not arrive, having said why.
    """
    try:
        path, archive = _described(release, host, answer)
        received = store.incoming(release.engine, release.key)
    except CorralError as error:
        job.report(host, str(error).splitlines())
        return False

    def fetch() -> bool:
        try:
            with metered_file(received, "wb", "fetching", archive.size_bytes, host) as file:
                ok = host.get_file(path, file, **arguments(host))
        except FileNotFoundError:
            # Another deploy joined the same job, and was the first to take its archive.
            if store.find(release.engine, release.key) == archive:
                return True
            raise
        if ok:
            store.add(received, archive)
        return ok

    try:
        if not _moved(host, path, fetch):
            return False
    finally:
        received.unlink(missing_ok=True)
    inform(f"{release.engine} {release.key} is in the store", host)
    remove = StringCommand("rm", "-f", QuoteString(path))
    return host.run_shell_command(remove, **arguments(host))[0]


def _described(release: ReleasePlan, host: Host, answer: dict[str, Any]) -> tuple[str, Archive]:
    """Where a host has the archive, and what it says of it. Raises CorralError."""
    built = as_answer(BUILT, answer, where=host.name)
    document = {
        "engine": release.engine, "key": release.key, "manifest": built.manifest,
        "size_bytes": built.archive.size_bytes, "sha256": built.archive.sha256,
    }  # fmt: skip
    step = "see what runs as the helper there; deploy the host again"
    archive = parse(Archive, document, where=f"{host.name}: {release.key}", next_step=step)
    return built.archive.path, archive


def send(store: ArchiveStore, archive: Archive, host: Host, path: str) -> bool:
    """Put an archive on a host, by one rename. False when it did not arrive, having said why."""
    size_mib = archive.size_bytes // 1024**2
    inform(f"{archive.engine} {archive.key}: sending {size_mib} MiB", host)
    # Another deploy may send the same archive while a job reads what was there first.
    source, partial = store.path(archive), f"{path}.{secrets.token_hex(4)}"
    how, passed = _to_root(arguments(host)), _passed(host, partial)

    def put() -> bool:
        with metered_file(source, "rb", "sending", archive.size_bytes, host) as file:
            return host.put_file(file, partial, passed, **how)

    if not _moved(host, path, put):
        _clear(host, passed)
        return False
    rename = StringCommand("mv", "-T", QuoteString(partial), QuoteString(path))
    return host.run_shell_command(rename, **arguments(host))[0]


def _to_root(how: dict[str, Any]) -> dict[str, Any]:
    """Who becomes root by default need not be named: pyinfra would run setfacl, which many lack."""
    return {key: value for key, value in how.items() if (key, value) not in ROOT_NAMED}


def _passed(host: Host, path: str) -> str | None:
    """Where pyinfra puts a file on its way, for a login that becomes root by a program."""
    how = arguments(host)
    becomes = any(how.get(key) for key in BECOMES)
    return str(host.get_temp_filename(path)) if becomes else None


def _clear(host: Host, passed: str | None) -> None:
    """What pyinfra leaves there when it fails: as large as an archive, and no deploy finds it."""
    if passed is None:
        return
    as_login = {name: value for name, value in arguments(host).items() if name not in BECOMES}
    remove = StringCommand("rm", "-f", QuoteString(passed))
    _moved(host, passed, lambda: host.run_shell_command(remove, **as_login)[0])


def _moved(host: Host, path: str, move: Callable[[], bool]) -> bool:
    """Whether the move went well; what stopped it is printed."""
    try:
        return move()
    except (SSHException, EOFError):
        job.report(host, [job.LOST])
    except OSError as error:
        job.report(host, [f"{path} did not arrive: {error}. {_NEXT}"])
    except CorralError as error:
        job.report(host, str(error).splitlines())
    return False
