"""Do something again and again beside a block, such as keeping a lease of a host alive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(do: Callable[[], None], *, seconds: float) -> Iterator[None]:
    """Call ``do`` after each ``seconds``, in a thread of its own, until the block ends."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(seconds):
            do()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
