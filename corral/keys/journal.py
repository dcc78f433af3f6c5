"""The journal of keys: who changed which keys when; never a key."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime

from corral.files import make_folder, sync, writing
from corral.paths import default_keys_journal
from corral.remote.client import current_operator

_FREE_SPACE = "free disk space there, then run the same command again"


def now() -> str:
    """This moment, as journals and stores write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def note(what: str, name: str, *, client: str = "", fingerprints: Sequence[str] = ()) -> None:
    """Append a line to the journal, durably, before the change that it tells of.

    + what: such as "add"; + name: HOST/NAME of the keys; + fingerprints: of the keys concerned
    Raises CorralError.
    """
    path = default_keys_journal()
    make_folder(path.parent, next_step=_FREE_SPACE, mode=0o700)
    entry = {"at": now(), "by": current_operator(), "what": what, "keys": name}
    if client:
        entry["client"] = client
    line = json.dumps({**entry, "fingerprints": list(fingerprints)}) + "\n"
    with writing(path, next_step=_FREE_SPACE):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            # One write, so that lines of two operators do not mix.
            file.write(line)
        sync(path)
