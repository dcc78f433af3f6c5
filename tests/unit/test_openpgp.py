"""Fingerprints of keys, against those that gpg told of the same keys."""

from __future__ import annotations

import base64

import pytest

from tests.unit.helper_modules import helper_module

openpgp = helper_module("openpgp")
# gpg --quick-generate-key 'Corral test' ed25519 sign never
FINGERPRINT = "A5D601544793736B9BC0D545C74BAF847F33B883"
KEY = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawGPYRYJKwYBBAHaRw8BAQdAikJ6CW4aP1u2mwpdW6Ey6bMU3RibMiujSz+6
fqCP8Du0C0NvcnJhbCB0ZXN0iJAEExYIADgWIQSl1gFUR5Nza5vA1UXHS6+EfzO4
gwUCawGPYQIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRDHS6+EfzO4g3v3
AP9hmUolLwY7GYE/LdIvPpGAjyd0JD9KqoBX0LCgohAhzQEAsUvpM1i2AZxZ7Rx6
ztCpOnBR5WJCSO5wl9GIflBMSAI=
=cIoy
-----END PGP PUBLIC KEY BLOCK-----
"""


def armored(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    return f"{openpgp.BEGIN}\nComment: ours\n\n{text}\n{openpgp.END}\n"


def test_the_fingerprint_is_gpgs() -> None:
    assert openpgp.primary_fingerprints(KEY) == [FINGERPRINT]
    assert openpgp.primary_fingerprints(KEY.replace("\n", "\r\n")) == [FINGERPRINT]


def test_a_second_key_in_the_file_is_seen() -> None:
    twice = openpgp.dearmor(KEY) * 2
    assert openpgp.primary_fingerprints(armored(twice)) == [FINGERPRINT] * 2


@pytest.mark.parametrize("length", [100, 300, 70000])
def test_packets_of_the_newer_form_are_read(length: int) -> None:
    """A key that was written so has the fingerprint of its body all the same."""
    body = openpgp.dearmor(KEY)[2:53]
    other = bytes([0xC0 | 13]) + new_length(length) + b"x" * length
    rewritten = other + bytes([0xC0 | 6, len(body)]) + body
    assert openpgp.primary_fingerprints(armored(rewritten)) == [FINGERPRINT]


def new_length(length: int) -> bytes:
    if length < 192:
        return bytes([length])
    if length < 8384:
        return bytes([((length - 192) >> 8) + 192, (length - 192) & 0xFF])
    return b"\xff" + length.to_bytes(4, "big")


@pytest.mark.parametrize("text", ["", "<html>404</html>", KEY.replace("BEGIN", "BEGAN")])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="not an armored public key"):
        openpgp.primary_fingerprints(text)
