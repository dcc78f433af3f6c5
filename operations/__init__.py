"""pyinfra operations, one module per subject: idempotent changes, thin over the host helper."""

from collections.abc import Generator

from pyinfra.api.command import PyinfraCommand

Commands = Generator[PyinfraCommand, None, None]
