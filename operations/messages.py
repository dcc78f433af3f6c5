"""Messages of a deploy; texts of hosts and servers are made safe for the terminal."""

from __future__ import annotations

import logging
import re

from corral_shared.text import printable, without_documents
from pyinfra import logger
from pyinfra.api.host import Host

from corral.host.fault import FAULT_LINE

# Colours that pyinfra gives its own lines.
_COLOUR = re.compile("(\x1b\\[[0-9;]*m)")


def inform(line: object, of: Host | None = None) -> None:
    """Print a line; ``of`` a host."""
    logger.info(_text(line, of))


def warn(line: object, of: Host | None = None) -> None:
    """Print a warning."""
    logger.warning(_text(line, of))


def complain(line: object, of: Host | None = None) -> None:
    """Print an error."""
    logger.error(_text(line, of))


def _text(line: object, of: Host | None) -> str:
    prefix = of.print_prefix if of else "    "
    return f"{prefix}{_fit(str(line))}"


def _fit(text: str) -> str:
    return without_documents(printable(text))


class _Printable(logging.Filter):
    """Filter of pyinfra's own log of failed commands; its colours stay.

    Drops the JSON line of a fault, whose text is logged as well.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        parts = _COLOUR.split(record.getMessage())
        if FAULT_LINE in record.getMessage():
            return False
        shown = [part if _COLOUR.fullmatch(part) else _fit(part) for part in parts]
        record.msg, record.args = "".join(shown), ()
        return True


def guard_log() -> None:
    """Make everything that pyinfra logs printable; needed once."""
    if not any(isinstance(one, _Printable) for one in logger.filters):
        logger.addFilter(_Printable())
