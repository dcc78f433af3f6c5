"""Stand-ins for age(1), whose files only the identity opens, and for sops."""

from __future__ import annotations

import json
from pathlib import Path

AGE = """#!/usr/bin/python3
import sys
words, magic = sys.argv[1:], b"age-encryption.org/v1\\n"
if "--decrypt" in words:
    identity = next(w for w in words if w.startswith("--identity=")).split("=", 1)[1]
    data = open(words[-1], "rb").read()
    recipient, _, body = data.removeprefix(magic).partition(b"\\n")
    if open(identity, "rb").read().strip() != recipient:
        sys.exit("age: error: no identity matched any of the recipients")
    sys.stdout.buffer.write(bytes(255 - b for b in body))
else:
    recipient = words[words.index("--recipient") + 1]
    if not recipient.startswith("age1"):
        sys.exit("age: error: malformed recipient")
    sys.stdout.buffer.write(magic + recipient.encode() + b"\\n")
    sys.stdout.buffer.write(bytes(255 - b for b in sys.stdin.buffer.read()))
"""
# As sops: JSON with the encrypted data; a file name that no rule covers is refused.
SOPS = """#!/usr/bin/python3
import json, sys
words = sys.argv[1:]
if "--decrypt" in words:
    data = json.load(open(words[-1]))["data"]
    sys.stdout.buffer.write(bytes(255 - b for b in bytes.fromhex(data)))
else:
    if "unruly" in words[words.index("--filename-override") + 1]:
        sys.exit("error loading config: no matching creation rules found")
    data = bytes(255 - b for b in open(words[-1], "rb").read())
    print(json.dumps({"data": data.hex(), "sops": {}}))
"""


def install(folder: Path) -> str:
    """Put both into a folder; returns a PATH that begins with it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("age", AGE), ("sops", SOPS)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def sops_file(text: str) -> str:
    """A file as sops writes it."""
    return json.dumps({"data": bytes(255 - b for b in text.encode()).hex(), "sops": {}})
