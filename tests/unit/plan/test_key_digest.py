"""Digests of keys: the same on both sides, and useless to who reads one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from corral.plan.key_digest import DIGEST_KEY, key_digest, state_question
from tests.samples import CHAT, plan
from tests.unit.helper_modules import helper_module

here = helper_module("server.key_digest")
TEXT = "a-key-of-twenty-characters\n"


def test_host_and_controller_make_the_same_digest_which_is_not_the_plain_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "chat"
    path.write_text(TEXT)
    path.chmod(0o600)
    asked = json.loads(state_question(plan(CHAT)))["digest_key"]
    assert here.private_digest(path, asked) == key_digest(TEXT)
    assert key_digest(TEXT) != hashlib.sha256(TEXT.encode()).hexdigest()
    assert here.private_digest(path, "another") != key_digest(TEXT)
    assert here.private_digest(path, None) is None
    path.chmod(0o640)
    assert here.private_digest(path, asked) is None
    assert here.private_digest(tmp_path / "absent", asked) is None


def test_the_key_of_digests_is_in_no_plan() -> None:
    assert DIGEST_KEY not in plan(CHAT).to_helper()
