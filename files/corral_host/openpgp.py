"""Fingerprints of OpenPGP keys (RFC 9580), so that a fetched key is the one that was meant."""

import base64
import hashlib

from corral_host.tools import HostError

BEGIN, END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
PUBLIC_KEY = 6


def primary_fingerprints(text):
    """Of every primary key in an armored key file; its subkeys are bound to it by signatures."""
    return [fingerprint(body) for tag, body in packets(dearmor(text)) if tag == PUBLIC_KEY]


def dearmor(text):
    lines = text.replace("\r", "").split("\n")
    if BEGIN not in lines or END not in lines:
        raise HostError("not an armored public key")
    block = lines[lines.index(BEGIN) + 1 : lines.index(END)]
    body = block[block.index("") + 1 :]
    return base64.b64decode("".join(line for line in body if not line.startswith("=")))


def packets(data):
    """Tag and body of each packet; partial lengths occur in messages only, not in keys."""
    while data:
        tag, start, length = new_header(data) if data[0] & 0x40 else old_header(data)
        yield tag, data[start : start + length]
        data = data[start + length :]


def new_header(data):
    tag, first = data[0] & 0x3F, data[1]
    if first < 192:
        return tag, 2, first
    if first < 224:
        return tag, 3, ((first - 192) << 8) + data[2] + 192
    return tag, 6, int.from_bytes(data[2:6], "big")


def old_header(data):
    size = 1 << (data[0] & 3)
    return (data[0] >> 2) & 0xF, 1 + size, int.from_bytes(data[1 : 1 + size], "big")


def fingerprint(body):
    if body[0] != 4:
        raise HostError(f"a key of version {body[0]}, known is 4")
    # SHA-1 is what version 4 defines; finding a second key for a given one is out of reach.
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()  # noqa: S324
