"""What a new corral.lock means for hosts: which entries moved, and the bytes that this costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from corral.catalog.entries import Catalog
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.lock.held import SHOWN_DIGITS, in_gib
from corral.lock.lock_file import Lock, LockedFile, resolve_instance

# (host, instance, engine, model, quant)
_Use = tuple[str, str, str, str, str]


def moves(old: Lock, new: Lock, catalog: Catalog, hosts: Iterable[Host]) -> Iterator[str]:
    """One sentence for each entry that moved, was added or removed, with its cost for hosts.

    What a host fetches is counted from the two locks: files whose digest it got by the old one
    are there already.
    """
    uses = list(_uses(hosts, catalog))
    for name in sorted(old.engines.keys() | new.engines.keys()):
        yield from _engine(name, old, new, uses)
    for name in sorted(old.models.keys() | new.models.keys()):
        yield from _model(name, old, new, uses)


def _uses(hosts: Iterable[Host], catalog: Catalog) -> Iterator[_Use]:
    """What instances use; those with a mistake are left out, as other commands report it."""
    for host in hosts:
        for spec in host.spec.instances:
            try:
                found = resolve_instance(spec, catalog, where=host.name)
            except CorralError:
                continue
            yield (host.name, f"{host.name}/{spec.name}", *found)


def _engine(name: str, old: Lock, new: Lock, uses: Sequence[_Use]) -> Iterator[str]:
    before, after = old.engines.get(name), new.engines.get(name)
    if after is None:
        yield f"engine {name}: removed, the catalog no longer has it"
        return
    if before == after:
        return
    users = [instance for _, instance, engine, _, _ in uses if engine == name]
    at = f"{after.commit[:SHOWN_DIGITS]} ({after.requested})"
    if before is None:
        yield f"engine {name}: locked at {at}"
    elif before.commit == after.commit:
        yield f"engine {name}: stays at {after.commit[:SHOWN_DIGITS]}, as {after.requested}"
    else:
        moved = f"{before.commit[:SHOWN_DIGITS]} ({before.requested}) -> {at}"
        yield f"engine {name}: {moved}; a new release{_restarts(users)}"


def _model(name: str, old: Lock, new: Lock, uses: Sequence[_Use]) -> Iterator[str]:
    before, after = old.models.get(name), new.models.get(name)
    if after is None:
        yield f"model {name}: removed, the catalog no longer has it"
        return
    if before == after:
        return
    at = f"{after.revision[:SHOWN_DIGITS]} ({after.repo}@{after.requested})"
    users = [use for use in uses if use[3] == name]
    costs = _costs(name, old, new, users)
    if before is None:
        yield f"model {name}: locked at {at}{costs}"
    elif (before.repo, before.revision) == (after.repo, after.revision):
        changed = [q for q in after.quants if after.quants[q] != before.quants.get(q)]
        gone = [quant for quant in before.quants if quant not in after.quants]
        parts = [f"{quant} locked" for quant in changed] + [f"{quant} removed" for quant in gone]
        what = ", ".join(parts) or f"as {after.repo}@{after.requested}"
        yield f"model {name}: stays at {after.revision[:SHOWN_DIGITS]}, {what}{costs}"
    else:
        moved = f"{before.revision[:SHOWN_DIGITS]} ({before.repo}@{before.requested}) -> {at}"
        restarts = _restarts([instance for _, instance, *_ in users])
        yield f"model {name}: {moved}{costs}{restarts}"


def _costs(name: str, old: Lock, new: Lock, users: Sequence[_Use]) -> str:
    """What each host fetches of a model."""
    parts = []
    for host in dict.fromkeys(use[0] for use in users):
        quants = [use[4] for use in users if use[0] == host]
        before = {file.sha256 for file in _files(old, name, quants)}
        missing = {f.sha256: f.size_bytes for f in _files(new, name, quants)}
        size_bytes = sum(size for digest, size in missing.items() if digest not in before)
        parts.append(f"{host} {in_gib(size_bytes) if size_bytes else 'nothing'}")
    return f"; to fetch: {', '.join(parts)}" if parts else ""


def _files(lock: Lock, name: str, quants: Iterable[str]) -> Iterator[LockedFile]:
    entry = lock.models.get(name)
    for quant in quants:
        yield from entry.quants.get(quant, ()) if entry else ()


def _restarts(instances: Sequence[str]) -> str:
    return f"; a deploy restarts {', '.join(instances)}" if instances else ""
