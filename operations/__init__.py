"""pyinfra operations, one module per subject: idempotent changes, thin over the host helper."""

import base64
from collections.abc import Generator

from pyinfra.api.command import PyinfraCommand, QuoteString, StringCommand

Commands = Generator[PyinfraCommand, None, None]


def put_bytes(path: str, content: bytes) -> StringCommand:
    """The command that writes a small file by one rename; its content is the standard input.

    Everybody may pass the folders that it makes, whatever the umask of the login.
    """
    folder = path.rsplit("/", 1)[0]
    # $$: two operators never write the same file.
    new = StringCommand(QuoteString(path), ".$$", _separator="")
    return StringCommand(
        "umask 022 && mkdir", "-p", QuoteString(folder), "&& base64 -d >", new, "&& mv -T", new,
        QuoteString(path), _stdin=base64.b64encode(content).decode(),
    )  # fmt: skip
