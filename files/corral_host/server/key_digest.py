"""Digests of keys for comparison with the controller's, as corral/plan/key_digest.py makes them.

Keyed by a random text of the controller's process, which is in no answer.
"""

import hashlib
import hmac
import os


def key_digest(text, digest_key):
    """Digest of the text of a key file, or of one key; None without ``digest_key``."""
    if not digest_key:
        return None
    return hmac.new(
        digest_key.encode(), text.encode(errors="surrogateescape"), hashlib.sha256
    ).hexdigest()


def private_digest(path, digest_key):
    """Digest of a key file; None if it does not exist or other users can read it."""
    if not os.path.exists(path) or os.stat(path).st_mode & 0o077:
        return None
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return key_digest(file.read(), digest_key)
