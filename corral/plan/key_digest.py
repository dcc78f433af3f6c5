"""Digests of keys that hosts and this process compare, keyed by a random text of this process.

One that is printed or logged tells nobody whether a guess of a key is right.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets

from corral.plan.host import HostPlan

# Named in documents of the helper (files/corral_host/server/key_digest.py), never in its answers.
DIGEST_KEY = secrets.token_hex(16)


def key_digest(text: str) -> str:
    """The digest of the text of a key file, or of one key."""
    return hmac.new(DIGEST_KEY.encode(), text.encode(), hashlib.sha256).hexdigest()


def state_question(plan: HostPlan) -> str:
    """The input of the helper's ``state``: a plan, and what it keys digests with."""
    return json.dumps({**json.loads(plan.to_helper()), "digest_key": DIGEST_KEY})
