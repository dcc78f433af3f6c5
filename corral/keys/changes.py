"""Changes of stored keys: let a client in, shut one out, replace keys while both are accepted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.keys.journal import note, now
from corral.schema import Frozen
from corral.store.api_keys import change_keys, entries_of, new_key
from corral.store.entries import KeyEntry


class Subject(Frozen):
    """Keys of the store: of an instance, or of a gateway.

    + host: the owner; + name: of its key file
    """

    host: Host
    name: str

    @property
    def shown(self) -> str:
        """HOST/NAME."""
        return f"{self.host.name}/{self.name}"


def add(subjects: Sequence[Subject], client: str) -> str:
    """Let a client in: a new key of its name, the same at all ``subjects``; returns it.

    Raises CorralError where it is let in already.
    """
    for subject in subjects:
        for entry in entries_of(subject.host, subject.name):
            if entry.client == client:
                what = f"{subject.shown} has a key of client {client} already"
                step = f"`corral keys show {_client(subject, client)}` prints it"
                raise CorralError(f"client {client}", what, step)
    made = KeyEntry(key=new_key(), client=client, made=now())
    for subject in subjects:
        note("add", subject.shown, client=client, fingerprints=[made.fingerprint])
        change_keys(subject.host, subject.name, partial(_with, made=made))
    return made.key


def _with(old: Sequence[KeyEntry], made: KeyEntry) -> list[KeyEntry]:
    return [*old, made]


def revoke(subjects: Sequence[Subject], client: str) -> None:
    """Shut a client out: its keys leave all ``subjects``. Raises CorralError."""
    found = [(s, _of_client(entries_of(s.host, s.name), client)) for s in subjects]
    if not any(keys for _, keys in found):
        known = {e.client for s in subjects for e in entries_of(s.host, s.name) if e.client}
        names = ", ".join(sorted(known)) or "none has a name"
        step = f"`corral keys show {_gateway(subjects[0])}` lists them"
        raise CorralError(f"client {client}", f"has no key there (clients: {names})", step)
    for subject, keys in found:
        if keys and len(keys) == len(entries_of(subject.host, subject.name)):
            what = f"{subject.shown} would have no key left"
            step = (
                f"let another client in first: `corral keys add {_gateway(subject)} --client NAME`"
            )
            raise CorralError(f"client {client}", what, step)
    for subject, keys in found:
        if keys:
            gone = [entry.fingerprint for entry in keys]
            note("revoke", subject.shown, client=client, fingerprints=gone)
            keys_gone = frozenset(entry.key for entry in keys)
            change_keys(subject.host, subject.name, partial(_without, keys=keys_gone))


def begin(subjects: Sequence[Subject], client: str = "") -> str:
    """Put a new key above each key in use; both are accepted until ``finish``.

    + client: only its keys. Keys that are equal at several subjects stay equal; what a killed
      ``begin`` did at some of them is continued at the others.
    Returns when it was begun before, "" if now: then nothing is changed, as hosts may not have the
    new keys yet. Raises CorralError.
    """
    entries = [(s, _of_client(entries_of(s.host, s.name), client)) for s in subjects]
    for subject, found in entries:
        if not found:
            what = f"{subject.shown} has no key of client {client}"
            step = f"`corral keys show {_gateway(subject)}` lists them"
            raise CorralError("corral keys rotate", what, step)
    begun = {key: new for _, found in entries for key, new in _begun(found).items()}
    waiting = [(s, found) for s, found in entries if not any(e.replaced for e in found)]
    if not waiting:
        return max(entry.replaced for _, found in entries for entry in found)
    at = now()
    new = {
        entry.key: KeyEntry(key=new_key(), client=entry.client, made=at)
        for _, found in waiting
        for entry in found
    } | begun
    for subject, found in waiting:
        prints = [new[entry.key].fingerprint for entry in found]
        note("rotate", subject.shown, client=client, fingerprints=prints)
        wanted = {entry.key: new[entry.key] for entry in found}
        change_keys(subject.host, subject.name, partial(_with_new, new=wanted, at=at))
    return ""


def _begun(entries: Sequence[KeyEntry]) -> dict[str, KeyEntry]:
    """Replaced key -> the one that replaced it: both have the same moment and order."""
    found: dict[str, KeyEntry] = {}
    for at in dict.fromkeys(entry.replaced for entry in entries if entry.replaced):
        old = [entry for entry in entries if entry.replaced == at]
        made = [entry for entry in entries if entry.made == at and not entry.replaced]
        found |= {before.key: after for before, after in zip(old, made, strict=False)}
    return found


def _with_new(old: Sequence[KeyEntry], new: dict[str, KeyEntry], at: str) -> list[KeyEntry]:
    """New keys first: the first one is that which Corral and gateways send."""
    made = [new[entry.key] for entry in old if entry.key in new]
    kept = [
        entry.model_copy(update={"replaced": at}) if entry.key in new else entry for entry in old
    ]
    return [*made, *kept]


def finish(subjects: Sequence[Subject], client: str = "") -> bool:
    """Remove replaced keys; returns whether there were any. Raises CorralError."""
    changed = False
    for subject in subjects:
        entries = _of_client(entries_of(subject.host, subject.name), client)
        gone = {entry.key: entry.fingerprint for entry in entries if entry.replaced}
        if gone:
            note("finish", subject.shown, client=client, fingerprints=list(gone.values()))
            change_keys(subject.host, subject.name, partial(_without, keys=frozenset(gone)))
        changed = changed or bool(gone)
    return changed


def _without(old: Sequence[KeyEntry], keys: frozenset[str]) -> list[KeyEntry]:
    return [entry for entry in old if entry.key not in keys]


def _of_client(entries: Sequence[KeyEntry], client: str) -> list[KeyEntry]:
    return [entry for entry in entries if not client or entry.client == client]


def _gateway(subject: Subject) -> str:
    """The option that names the keys of a gateway's clients."""
    return f"--gateway {subject.host.name}/{subject.name.removeprefix('gateway-')}"


def _client(subject: Subject, client: str) -> str:
    return f"{_gateway(subject)} --client {client}"
