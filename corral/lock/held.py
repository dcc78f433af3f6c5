"""What is locked stays locked until somebody asks for that model or engine by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corral.catalog.entries import Model
from corral.errors import CorralError
from corral.lock.lock_file import LockedEngine, LockedFile, LockedModel
from corral.names import is_commit

SHOWN_DIGITS = 12
_GIB = 1024**3


@dataclass(frozen=True)
class Update:
    """How an entry that stays is moved on purpose.

    + what: such as ``model glm-4.5-air``; + command: such as ``corral lock inventories/prod.py``
    + note: called with a sentence where the entry stays and something else is there to take
    """

    what: str
    command: str
    name: str
    note: Callable[[str], None]

    def stays(self, locked: str, reason: str) -> None:
        """Note that an entry stays where it is."""
        take = f"Next, to take it: `{self.step}`"
        self.note(f"{self.what} stays at {locked[:SHOWN_DIGITS]}: {reason}. {take}")

    @property
    def step(self) -> str:
        """The command that moves the entry."""
        return f"{self.command} --update {self.name}"


def held_commit(
    old: LockedEngine | None, requested: str, resolve: Callable[[], LockedEngine], update: Update
) -> LockedEngine:
    """The locked commit where the catalog still requests the same, else a new one.

    + old: None to resolve anew. Raises CorralError.
    """
    if old is None or old.requested != requested or old.requirements_sha256 is not None:
        return resolve()
    if is_commit(requested):
        # Asks the sources whether they have it.
        return resolve()
    try:
        new = resolve()
    except CorralError as error:
        update.note(f"{update.what} stays at {old.commit[:SHOWN_DIGITS]}, unchecked: {error}")
        return old
    if new.commit != old.commit:
        update.stays(old.commit, f"{requested} is now {new.commit[:SHOWN_DIGITS]}")
    return old


def held_model(
    old: LockedModel | None,
    model: Model,
    resolve: Callable[[Model], LockedModel],
    update: Update,
) -> LockedModel:
    """The locked revision, as long as the catalog does not ask for another.

    A quant that the catalog gained is taken from the locked revision: another revision has another
    path on hosts, and a server restarts where its path changes.

    + old: None to resolve anew. Raises CorralError.
    """
    if old is None or old.repo != model.repo or is_commit(model.revision):
        return resolve(model)
    if old.requested != model.revision:
        return _of_other_revision(old, model, resolve)
    new = _newest(model, resolve)
    held = _without_dropped(old, model)
    if held is None:
        held = _at_locked_revision(old, model, resolve, update, newest=new)
    if isinstance(new, CorralError):
        at = held.revision[:SHOWN_DIGITS]
        update.note(f"{update.what} stays at {at}, unchecked: {new}")
    else:
        _compare(held, new, model, update)
    return held


def _of_other_revision(
    old: LockedModel, model: Model, resolve: Callable[[Model], LockedModel]
) -> LockedModel:
    """The catalog names another branch or tag: it is taken, unless it has the very same files."""
    new = resolve(model)
    if new.quants != old.quants:
        return new
    kept = {"requested": model.revision, "patterns": new.patterns}
    return old.model_copy(update=kept)


def _newest(model: Model, resolve: Callable[[Model], LockedModel]) -> LockedModel | CorralError:
    """What the branch or tag has now, or why that cannot be had, which changes nothing locked."""
    try:
        return resolve(model)
    except CorralError as error:
        return error


def _without_dropped(old: LockedModel, model: Model) -> LockedModel | None:
    """The entry without quants that left the catalog; None where the catalog asks for more."""
    wanted = {quant: entry.patterns for quant, entry in model.quants.items()}
    if any(old.patterns.get(quant) != patterns for quant, patterns in wanted.items()):
        return None
    kept = {quant: old.quants[quant] for quant in wanted}
    return old.model_copy(update={"patterns": wanted, "quants": kept})


def _at_locked_revision(
    old: LockedModel,
    model: Model,
    resolve: Callable[[Model], LockedModel],
    update: Update,
    *,
    newest: LockedModel | CorralError,
) -> LockedModel:
    """The quants of a changed catalog entry, at the locked revision. Raises CorralError."""
    try:
        found = resolve(model.model_copy(update={"revision": old.revision}))
    except CorralError as error:
        if isinstance(newest, CorralError):
            # A mistake in the catalog, or a hub that does not answer: no other revision helps.
            raise newest from error
        where = f"{update.what}, which is locked at {old.revision[:SHOWN_DIGITS]}"
        what = f"what the catalog asks for now is not there: {error.where}: {error.what}"
        raise CorralError(where, what, f"`{update.step}`") from error
    return found.model_copy(update={"requested": model.revision})


def _compare(held: LockedModel, new: LockedModel, model: Model, update: Update) -> None:
    """Note that the branch or tag is another revision now."""
    if new.revision == held.revision:
        return
    moved = other_bytes(held, new)
    is_now = f"{model.revision} is now {new.revision[:SHOWN_DIGITS]}"
    if moved:
        files = {file for quant in moved.values() for file in quant}
        size = in_gib(sum(file.size_bytes for file in files))
        reason = f"{is_now} with other files of {', '.join(sorted(moved))} ({size})"
        update.stays(held.revision, reason)
    else:
        at = held.revision[:SHOWN_DIGITS]
        update.note(f"{update.what} stays at {at}: {is_now} with the same files")


def other_bytes(old: LockedModel, new: LockedModel) -> dict[str, tuple[LockedFile, ...]]:
    """Quant -> files of ``new`` that ``old`` does not have with the same path and digest."""
    known = {file for files in old.quants.values() for file in files}
    found = {
        quant: tuple(file for file in files if file not in known)
        for quant, files in new.quants.items()
    }
    return {quant: files for quant, files in found.items() if files}


def in_gib(size_bytes: int) -> str:
    """Such as ``72.9 GiB``; small sizes in bytes."""
    if size_bytes < _GIB / 100:
        return f"{size_bytes:,} bytes"
    return f"{size_bytes / _GIB:.1f} GiB"
