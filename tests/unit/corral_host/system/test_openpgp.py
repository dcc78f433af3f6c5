"""The key that apt will trust: read strictly, compared with gpg's result, written again."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.helper_modules import helper_module

pytestmark = pytest.mark.slow

openpgp = helper_module("system.openpgp")
apt = helper_module("system.apt")
HostError = helper_module("system.commands").HostError
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
DATA = base64.b64decode("".join(KEY.splitlines()[2:7]))
BODY = DATA[2:53]
REST = DATA[53:]
OTHER = base64.b64encode(DATA.replace(b"Corral test", b"Mallory's k")).decode()


def armored(data: bytes) -> str:
    """The key as another program may write it: with a comment, on one line, without a checksum."""
    text = base64.b64encode(data).decode()
    return f"{openpgp.BEGIN}\nComment: ours\n\n{text}\n{openpgp.END}\n"


def checked(text: str) -> tuple[str, str]:
    found: tuple[str, str] = openpgp.checked_key(text.encode())
    return found


def refused(text: str | bytes) -> str:
    with pytest.raises(HostError, match=r"\. Next: ") as caught:
        openpgp.checked_key(text if isinstance(text, bytes) else text.encode())
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY.replace("\n", "\r\n"),
        KEY.replace("\n", " \t\n"),
        f"\n \n{KEY}\n\n",
        KEY.replace("=cIoy\n", ""),
        armored(DATA),
        KEY.replace("BLOCK-----\n\n", "BLOCK-----\nVersion: GnuPG v2.0.22 (GNU/Linux)\n\n", 1),
    ],
)
def test_the_fingerprint_is_gpgs_and_the_text_is_our_own(text: str) -> None:
    # Equal bytes and line lengths as gpg's export, so the text is gpg's.
    assert checked(text) == (FINGERPRINT, KEY)


@pytest.mark.parametrize("length", [100, 300, 70000])
def test_packets_of_the_newer_form_are_read(length: int) -> None:
    """Such a key has the same fingerprint, which is of its body."""
    user = bytes([0xC0 | 13]) + new_length(length) + b"x" * length
    rewritten = bytes([0xC0 | 6, len(BODY)]) + BODY + user
    fingerprint, text = checked(armored(rewritten))
    assert fingerprint == FINGERPRINT
    assert list(openpgp.packets(openpgp.dearmor(text.encode()))) == [
        (6, BODY), (13, b"x" * length),
    ]  # fmt: skip


def new_length(length: int) -> bytes:
    if length < 192:
        return bytes([length])
    if length < 8384:
        return bytes([((length - 192) >> 8) + 192, (length - 192) & 0xFF])
    return b"\xff" + length.to_bytes(4, "big")


def test_a_user_attribute_keeps_its_type() -> None:
    """Type 17, a picture, which the old header cannot hold."""
    data = DATA + bytes([0xC0 | 17, 3]) + b"jpg"
    _, text = checked(armored(data))
    assert list(openpgp.packets(openpgp.dearmor(text.encode())))[-1] == (17, b"jpg")


BEGIN, END = openpgp.BEGIN, openpgp.END


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>404</html>",
        KEY.replace("BEGIN", "BEGAN"),
        KEY + KEY,
        # apt reads a block that a strict comparison of lines would miss.
        KEY.replace("KEY BLOCK-----\n\n", f"KEY BLOCK----- \n\n{OTHER}\n{END}\n{BEGIN}\n\n", 1),
        f"{BEGIN} \n\n{OTHER}\n{END}\n{KEY}",
        f"{KEY}{BEGIN} \n\n{OTHER}\n{END}\n",
        f"a note\n{KEY}",
        f"{KEY}a note\n",
        BEGIN,
        f"{BEGIN}{END}",
        f"{BEGIN}\n{END}",
        f"{BEGIN}\n\n{END}",
        KEY.replace("BLOCK-----\n\n", "BLOCK-----\n", 1),
        KEY.replace("BLOCK-----\n\n", f"BLOCK-----\n{OTHER}\n\n", 1),
        KEY.replace("mDME", "mD!E"),
        KEY.replace("mDME", "mD\u00e9ME"),
        KEY.replace("mDME", "\u0000mDME"),
        # Lines that begin with "=" are data or a checksum, and must not be skipped.
        KEY.replace("fqCP", "=qCP"),
        KEY.replace("=cIoy", "=cIoy\n=cIoy"),
        KEY.replace("=cIoy", "=AAAA"),
        KEY.replace("mDMEawGP", "mDMEawGQ"),
    ],
)
def test_what_is_not_one_sound_block_is_refused(text: str) -> None:
    assert "not an armored public key" in refused(text)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (DATA * 2, "2 primary keys"),
        (DATA + bytes([0x80 | 6 << 2, len(BODY)]) + BODY, "2 primary keys"),
        (bytes([0xC0 | 13, 1]) + b"x" + DATA, "does not begin with a primary key"),
        (REST + DATA[:53], "does not begin with a primary key"),
        (b"", "not base64"),
        # Data packets, a secret key, a compressed message, a private packet.
        (DATA + bytes([0xC0 | 11, 1]) + b"x", "packets of type 11"),
        (DATA + bytes([0xC0 | 5, 1]) + b"x", "packets of type 5"),
        (DATA + bytes([0xC0 | 8, 0]) + bytes([0xC0 | 60, 0]), "packets of type 8, 60"),
        (DATA + b"\x00", "not made of packets"),
        (DATA[:-1], "cut off"),
        (DATA[:2], "cut off"),
        (DATA[:1], "cut off"),
        (bytes([0xC0 | 6, 200]), "cut off"),
        (bytes([0xC0 | 6, 255, 0, 0]), "cut off"),
        # Without a length (older) and with a partial one (newer).
        (bytes([0x80 | 6 << 2 | 3]) + BODY, "has no length"),
        (bytes([0xC0 | 6, 224]) + BODY, "partial length"),
        (bytes([0xC0 | 6, 0]), "0 bytes"),
        (bytes([0xC0 | 6, 5]) + BODY[:5], "5 bytes"),
        (bytes([0xC0 | 6, len(BODY)]) + b"\x06" + BODY[1:], "version 6"),
        (bytes([0xC0 | 6]) + new_length(1 << 16) + b"\x04" * (1 << 16), "65536 bytes"),
    ],
)
def test_anything_but_one_key_with_its_signatures_is_refused(data: bytes, why: str) -> None:
    assert why in refused(armored(data))


def test_a_file_larger_than_any_key_is_refused_unread() -> None:
    assert "larger than 1048576 bytes" in refused(KEY.encode() + b"\n" * openpgp.MOST_BYTES)


def answer(data: bytes) -> None:
    """Either a key or the one error that a host reports."""
    try:
        fingerprint, text = openpgp.checked_key(data)
    except HostError:
        return
    assert len(fingerprint) == 40
    assert openpgp.checked_key(text.encode()) == (fingerprint, text)


@given(st.binary(max_size=200))
@example(b"\xff")
def test_any_file_is_a_key_or_a_host_error(data: bytes) -> None:
    answer(data)
    answer(f"{BEGIN}\n\n".encode() + data + f"\n{END}".encode())


@given(st.binary(max_size=200))
@example(bytes([0xC0 | 6, 51]) + BODY)
def test_any_packets_are_a_key_or_a_host_error(data: bytes) -> None:
    answer(armored(data).encode())
    answer(armored(DATA + data).encode())


@given(st.integers(0, len(KEY) - 1), st.binary(max_size=3))
def test_a_key_with_any_damage_is_that_key_or_refused(at: int, other: bytes) -> None:
    damaged = KEY.encode()[:at] + other + KEY.encode()[at + len(other) :]
    try:
        found = openpgp.checked_key(damaged)
    except HostError:
        return
    # Without a complete checksum only the packets decide.
    if b"=" in damaged.splitlines()[-2]:
        assert found == (FINGERPRINT, KEY)


def gpg(home: Path, *arguments: str, given: bytes | None = None) -> str:
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout.decode()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "gnupg"
    folder.mkdir(mode=0o700)
    yield folder
    subprocess.run(["gpgconf", "--homedir", folder, "--kill", "all"], capture_output=True)


def fingerprints(home: Path, text: str) -> list[str]:
    """Fingerprints of all keys and subkeys that gpg finds in a file."""
    arguments = ("--with-colons", "--with-fingerprint", "--with-fingerprint", "--show-keys")
    rows = [line.split(":") for line in gpg(home, *arguments, given=text.encode()).splitlines()]
    return [row[9] for row in rows if row[0] == "fpr"]


def test_gpg_reads_our_text_as_exactly_the_pinned_key(home: Path) -> None:
    """A key with two user ids, a subkey and its signatures, as publishers have them."""
    arguments = (
        "--passphrase",
        "",
        "--quick-generate-key",
        "One <a@b.c>",
        "rsa2048",
        "sign",
        "never",
    )
    gpg(home, *arguments)
    (wanted,) = fingerprints(home, gpg(home, "--armor", "--export"))
    gpg(home, "--passphrase", "", "--quick-add-key", wanted, "rsa2048", "sign", "never")
    gpg(home, "--quick-add-uid", wanted, "Two <d@e.f>")
    exported = gpg(home, "--armor", "--export", wanted)
    found, text = checked(exported)
    assert found == wanted
    assert fingerprints(home, text) == fingerprints(home, exported)
    assert fingerprints(home, text)[0] == wanted
    assert text == exported
    # gpgv, which apt uses, accepts what the subkey signed.
    signed = gpg(home, "--armor", "--detach-sign", given=b"Release").encode()
    gpg(home, "--yes", "--dearmor", "--output", str(home / "ring"), given=text.encode())
    (home / "signature").write_bytes(signed)
    command = ["gpgv", "--keyring", str(home / "ring"), str(home / "signature"), "-"]
    if shutil.which("gpgv"):
        subprocess.run(command, input=b"Release", capture_output=True, check=True)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Address -> text that apt's helper fetches there; it also gets the command."""
    texts: dict[str, str] = {}

    def fetch(*command: object) -> None:
        *begin, url, target = command
        texts["command"] = " ".join(map(str, begin))
        if str(url) not in texts:
            raise HostError("prlimit failed with exit code 100")
        Path(str(target)).write_text(texts[str(url)])

    monkeypatch.setattr(apt, "loud", fetch)
    return texts


URL = "https://apt.example.com/key.pub"


def test_what_apt_gets_is_what_was_checked(served: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "keyrings" / "corral.asc"
    served[URL] = KEY.replace("BLOCK-----\n\n", "BLOCK-----\nComment: from outside\n\n", 1)
    apt.fetch_key(URL, FINGERPRINT, str(target), "catalog/drivers/")
    assert target.read_text() == KEY
    assert target.stat().st_mode & 0o777 == 0o644
    # However much is sent, not more than the size of a key is written.
    assert served["command"].startswith("prlimit --fsize=1048576 /usr/lib/apt/apt-helper ")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "<html>",
        f"{BEGIN} \n\n{OTHER}\n{END}\n{KEY}",
        armored(DATA.replace(b"\x16\x09\x2b", b"\x16\x09\x2c")),
    ],
)
def test_any_other_text_changes_nothing(
    served: dict[str, str], tmp_path: Path, text: str | None
) -> None:
    target = tmp_path / "corral.asc"
    target.write_text("as before")
    if text is not None:
        served[URL] = text
    with pytest.raises(HostError, match=r"(?s)https://apt.*\. Next: "):
        apt.fetch_key(URL, FINGERPRINT, str(target), "catalog/drivers/")
    assert target.read_text() == "as before"
