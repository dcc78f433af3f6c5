"""One armored OpenPGP key (RFC 9580), read strictly and written again from what was read.

The program that trusts a file must not find more in it than the program that checked it: a more
lenient reader than this one would see a second block or a packet that was skipped. So nothing is
skipped here, and apt gets a text made from the checked packets, never the text that was fetched.
gpg is not needed; hosts with Debian or Ubuntu may lack it.
"""

import base64
import hashlib
import re

from corral_host.system.commands import HostError

BEGIN, END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
MOST_BYTES = 1024 * 1024
SIGNATURE, PUBLIC_KEY, USER_ID, SUBKEY, USER_ATTRIBUTE = 2, 6, 13, 14, 17
ALLOWED = (SIGNATURE, PUBLIC_KEY, USER_ID, SUBKEY, USER_ATTRIBUTE)
ARMOR_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]*: .*")
BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
CHECKSUM = re.compile(rb"=[A-Za-z0-9+/]{4}")
LINE_CHARACTERS = 64
# Version, time of creation, algorithm (RFC 9580, 5.5.2.2); its length has two bytes in the hash.
KEY_BYTES = range(6, 1 << 16)


def checked_key(data):
    """Fingerprint of the one key in a file's bytes, and the armored text to use in its place.

    Signatures are not checked: a user of the key accepts only what the primary key signed.
    Raises HostError for anything but one block that holds one key.
    """
    if len(data) > MOST_BYTES:
        raise refused(f"it is larger than {MOST_BYTES} bytes")
    found = list(packets(dearmor(data)))
    tags = [tag for tag, _ in found]
    others = sorted({tag for tag in tags if tag not in ALLOWED})
    if others:
        raise refused(f"it holds packets of type {', '.join(map(str, others))}")
    if tags[:1] != [PUBLIC_KEY]:
        raise refused("it does not begin with a primary key")
    if tags.count(PUBLIC_KEY) != 1:
        raise refused(f"it holds {tags.count(PUBLIC_KEY)} primary keys")
    return fingerprint(found[0][1]), armored(b"".join(packet(*one) for one in found))


def refused(why):
    return HostError(
        f"not an armored public key that Corral accepts: {why}",
        "check what key_url in the catalog serves; ask its publisher for the right address",
    )


def dearmor(data):
    """The bytes in a block; only white space may surround it."""
    lines = [line.rstrip(b" \t\r") for line in data.strip(b" \t\r\n").split(b"\n")]
    if len(lines) < 2 or (lines[0], lines[-1]) != (BEGIN.encode(), END.encode()):
        raise refused("it is not one block with nothing around it")
    lines = lines[1:-1]
    if b"" not in lines:
        raise refused("its block has no empty line before the data")
    start = lines.index(b"")
    if not all(ARMOR_HEADER.fullmatch(line) for line in lines[:start]):
        raise refused("its block begins with something else than headers")
    body = lines[start + 1 :]
    # RFC 9580, 6.1: the checksum is optional.
    checksum = body.pop() if body and CHECKSUM.fullmatch(body[-1]) else None
    text = b"".join(body)
    if not text or not BASE64.fullmatch(text):
        raise refused("its data is not base64")
    found = base64.b64decode(text)
    if checksum and base64.b64decode(checksum[1:]) != crc24(found):
        raise refused("its checksum is wrong")
    return found


def armored(data):
    text = base64.b64encode(data).decode()
    lines = [text[at : at + LINE_CHARACTERS] for at in range(0, len(text), LINE_CHARACTERS)]
    # Older readers require the checksum.
    checksum = "=" + base64.b64encode(crc24(data)).decode()
    return "\n".join([BEGIN, "", *lines, checksum, END]) + "\n"


def crc24(data):
    """RFC 9580, 6.1.1."""
    found = 0xB704CE
    for byte in data:
        found ^= byte << 16
        for _ in range(8):
            found <<= 1
            if found & 0x1000000:
                found ^= 0x1864CFB
    return found.to_bytes(3, "big")


def packets(data):
    """Tag and body of each packet. Raises HostError unless all are whole."""
    at = 0
    while at < len(data):
        if not data[at] & 0x80:
            raise refused("its data is not made of packets")
        tag, start, length = new_header(data, at) if data[at] & 0x40 else old_header(data, at)
        if start + length > len(data):
            raise refused("its last packet is cut off")
        yield tag, data[start : start + length]
        at = start + length


def new_header(data, at):
    tag, first = data[at] & 0x3F, number(data, at + 1, 1)
    if first < 192:
        return tag, at + 2, first
    if first < 224:
        return tag, at + 3, ((first - 192) << 8) + number(data, at + 2, 1) + 192
    # Partial lengths are for messages (RFC 9580, 4.2.1.4).
    if first < 255:
        raise refused("a packet of it has a partial length")
    return tag, at + 6, number(data, at + 2, 4)


def old_header(data, at):
    tag, kind = (data[at] >> 2) & 0xF, data[at] & 3
    if kind == 3:
        raise refused("a packet of it has no length")
    return tag, at + 1 + (1 << kind), number(data, at + 1, 1 << kind)


def number(data, at, size):
    if at + size > len(data):
        raise refused("its last packet is cut off")
    return int.from_bytes(data[at : at + size], "big")


def packet(tag, body):
    """A packet as gpg writes it: with the old header if that can hold the tag."""
    if tag > 15:
        return bytes([0xC0 | tag, 255]) + len(body).to_bytes(4, "big") + body
    kind = 0 if len(body) < 1 << 8 else 1 if len(body) < 1 << 16 else 2
    return bytes([0x80 | tag << 2 | kind]) + len(body).to_bytes(1 << kind, "big") + body


def fingerprint(body):
    if len(body) not in KEY_BYTES:
        raise refused(f"its key has {len(body)} bytes")
    if body[0] != 4:
        raise refused(f"its key is of version {body[0]}, known is 4")
    # SHA-1 is what version 4 defines; finding a second key for a given one is out of reach.
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()  # noqa: S324
