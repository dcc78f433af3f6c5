"""Drivers in the catalog: the real entries, the files that come of them, what needs what."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from corral.catalog.drivers import (
    KEYRING_FILE,
    PREFERENCES_FILE,
    SOURCES_FILE,
    UPGRADES_FILE,
    AptSource,
)
from corral.catalog.entries import load_catalog
from corral.host.state import HostSource
from corral.nvidia import versions
from corral.nvidia.apt import installing_files, keeping_files
from corral.preflight.checks import SUPPORTED
from tests.gpu_samples import SOURCE, bare_cards, decided, finding, gpu_plan
from tests.samples import EXAMPLES

DRIVERS = load_catalog(EXAMPLES / "catalog").drivers


def test_every_supported_distribution_has_an_entry() -> None:
    assert set(DRIVERS) == {f"{name}-{version}" for name, version in SUPPORTED}


@pytest.mark.parametrize("name", DRIVERS)
def test_the_pinned_driver_serves_the_pinned_toolkit(name: str) -> None:
    entry = DRIVERS[name]
    assert versions.at_least(entry.driver.version, versions.minimum_driver(entry.toolkit_release))
    assert entry.toolkit.version.startswith(entry.toolkit_release)
    assert versions.builds_for(entry.toolkit_release, "8.0")


@pytest.mark.parametrize("name", DRIVERS)
def test_a_source_names_its_own_distribution(name: str) -> None:
    file = EXAMPLES / "catalog" / "drivers" / f"{name}.toml"
    source = tomllib.loads(file.read_text())["source"]
    word = {"debian-13": "trixie"}.get(name, name.replace("-", "").replace(".", ""))
    assert word in f"{source.get('uri')} {source.get('suite', '')}"


def test_apt_is_told_where_to_install_from_and_in_which_version() -> None:
    files = installing_files(SOURCE)
    assert files[SOURCES_FILE] == (
        "Types: deb\n"
        "URIs: https://apt.example.com/\n"
        "Suites: /\n"
        "Signed-By: /etc/apt/keyrings/corral-nvidia.asc\n"
    )
    assert files[PREFERENCES_FILE] == (
        "Package: nvidia-open src:*nvidia*:any\n"
        "Pin: version 580.*\n"
        "Pin-Priority: 1001\n"
        "\n"
        "Package: cuda-toolkit-12-8\n"
        "Pin: version 12.8.*\n"
        "Pin-Priority: 1001\n"
    )


def test_a_distributions_own_source_has_its_components_and_keyring() -> None:
    source = SOURCE.model_copy(update={"source": AptSource(
        uri="https://deb.example.com/debian", suite="trixie", components=("contrib", "non-free"),
        keyring="/usr/share/keyrings/debian-archive-keyring.gpg",
    )})  # fmt: skip
    text = installing_files(source)[SOURCES_FILE]
    assert "Components: contrib non-free\n" in text
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n" in text


MIRROR = HostSource(
    uri="http://mirror.example.com/debian", suite="trixie", components=("main", "contrib"),
    signed_by="/etc/apt/keyrings/mirror.gpg",
)  # fmt: skip


def test_a_hosts_own_mirror_gets_the_components_that_it_lacks() -> None:
    others = HostSource(uri="http://x.example.com", suite="trixie-updates", components=("main",))
    assert installing_files(DRIVERS["debian-13"], (others, MIRROR))[SOURCES_FILE] == (
        "Types: deb\n"
        "URIs: http://mirror.example.com/debian\n"
        "Suites: trixie\n"
        "Components: non-free\n"
        "Signed-By: /etc/apt/keyrings/mirror.gpg\n"
    )


def test_a_key_in_the_hosts_own_file_is_taken_over_line_by_line() -> None:
    key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n -----END PGP PUBLIC KEY BLOCK-----"
    keyed = MIRROR.model_copy(update={"signed_by": key, "trusted": True})
    text = installing_files(DRIVERS["debian-13"], (keyed,))[SOURCES_FILE]
    assert text.endswith(f"Signed-By: {key}\nTrusted: yes\n")


def test_a_host_that_has_all_components_gets_no_file() -> None:
    rest = MIRROR.model_copy(update={"components": ("non-free",)})
    assert SOURCES_FILE not in installing_files(DRIVERS["debian-13"], (MIRROR, rest))


def test_a_host_without_a_repository_of_the_suite_is_a_finding() -> None:
    planned = gpu_plan(debian_12=DRIVERS["debian-13"])
    setup = planned.gpu_setup
    assert setup
    needing = planned.model_copy(update={"gpu_setup": setup.model_copy(update={"toolkit": None})})
    what, step = finding(decided(bare_cards(), needing))
    assert "no package source of the host has trixie main" in what
    assert "set uri and keyring in catalog/drivers/debian-12.toml" in step
    assert decided(bare_cards(apt_sources=(MIRROR,)), needing).install


@pytest.mark.parametrize(
    "values",
    [
        {"suite": "trixie"},
        {"suite": "trixie", "components": ["non-free"], "keyring": "/k.gpg"},
        {"uri": "https://x.example.com", "components": ["non-free"]},
    ],
)
def test_a_source_is_either_the_hosts_own_or_signed(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"uri|keyring"):
        AptSource.model_validate(values)


def test_without_a_source_of_its_own_none_is_written() -> None:
    assert set(installing_files(SOURCE.model_copy(update={"source": None}))) == {PREFERENCES_FILE}


def test_unattended_upgrades_leave_drivers_alone() -> None:
    text = keeping_files()[UPGRADES_FILE]
    assert text.startswith("Unattended-Upgrade::Package-Blacklist {\n")
    assert '  "^libnvidia-";\n' in text


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"key_url": "https://a/k"},
        {"key_fingerprint": "A" * 40},
        {"keyring": "/k", "key_url": "https://a/k", "key_fingerprint": "A" * 40},
        {"key_url": "https://a/k", "key_fingerprint": "a4b46996"},
    ],
)
def test_a_source_must_say_who_signs_it(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="key"):
        AptSource(uri="https://apt.example.com/", **keys)


def test_apt_reads_the_fetched_key_by_the_end_of_its_name() -> None:
    """.asc is armored, as files/corral_host/system/openpgp.py writes it; .gpg would be binary."""
    assert KEYRING_FILE.endswith(".asc")
    assert f"Signed-By: {KEYRING_FILE}\n" in installing_files(SOURCE)[SOURCES_FILE]


@pytest.mark.parametrize(
    "changes",
    [
        {"suite": "/\nTrusted: yes"},
        {"components": ["main\nTrusted: yes"]},
        {"uri": "https://apt.example.com/\nTrusted: yes"},
        {"key_url": "-oDir::Bin=x", "key_fingerprint": "A" * 40, "keyring": None},
        {"key_url": "file:///etc/shadow", "key_fingerprint": "A" * 40, "keyring": None},
        {"keyring": "/usr/share/keyrings/a.kbx"},
        {"keyring": "relative.gpg"},
    ],
)
def test_a_source_brings_no_line_and_no_option_of_its_own(changes: dict[str, Any]) -> None:
    keys = {"uri": "https://apt.example.com/", "keyring": "/usr/share/keyrings/a.gpg"}
    assert AptSource.model_validate(keys)
    with pytest.raises(ValueError, match="should match pattern"):
        AptSource.model_validate({**keys, **changes})


@pytest.mark.parametrize(
    ("toolkit", "driver"),
    [("11.8", "520.61"), ("12.8", "570.26"), ("13.0", "580.65"), ("12.5", "550.54"),
     ("13.2", "580.65"), ("11.4", "0")],
)  # fmt: skip
def test_the_least_driver_of_a_toolkit(toolkit: str, driver: str) -> None:
    assert versions.minimum_driver(toolkit) == driver


@pytest.mark.parametrize(
    ("version", "minimum", "reaches"),
    [
        ("570.26", "570.26", True),
        ("570.9", "570.26", False),
        ("1000.1", "570.26", True),
        ("580.*", "580.65", True),
        ("580.159.04-1", "580.65", True),
        ("550.*", "570.26", False),
        ("535.183.01", "0", True),
    ],
)
def test_versions_compare_by_number(version: str, minimum: str, reaches: bool) -> None:
    assert versions.at_least(version, minimum) is reaches
