"""Images on this host: whether a file is the one that was proved, without reading all of it."""

import os
from pathlib import Path

from corral_host.system.commands import read_json

RECEIPT = "installed.json"
FIELD = "image"


def mark(image):
    """What a receipt records of an image: a file that was written or replaced has another mark."""
    found = os.stat(image)
    return {"inode": found.st_ino, "changed_ns": found.st_mtime_ns}


def is_as_installed(image):
    """Whether an image is the file that its receipt records; it is in the folder of its release."""
    receipt = read_json(Path(image).with_name(RECEIPT)) or {}
    return os.path.isfile(image) and receipt.get(FIELD) == mark(image)
