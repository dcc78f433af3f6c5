"""The lab's names and addresses: unique to a checkout, legal on Linux, apart from each other."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lab.hosts import platform
from lab.layout import MAX_HOSTS, Layout, this_lab

_LONGEST_LINK_NAME = 15
HERE = Layout.of(Path("/srv/corral"))
ELSEWHERE = Layout.of(Path("/srv/other/corral"))


def test_the_same_path_gives_the_same_lab() -> None:
    assert Layout.of(Path("/srv/corral/../corral")) == HERE


def test_this_lab_belongs_to_the_checkout_that_holds_the_package() -> None:
    assert (this_lab().checkout / "lab" / "layout.py").is_file()


@pytest.mark.parametrize("name", ["lab_id", "bridge", "nft_table", "subnet", "state", "lock_file"])
def test_two_checkouts_share_no(name: str) -> None:
    assert getattr(HERE, name) != getattr(ELSEWHERE, name)


def test_two_checkouts_share_the_caches() -> None:
    assert HERE.cache == ELSEWHERE.cache


def test_link_names_are_short_enough_for_linux() -> None:
    assert len(HERE.bridge) <= _LONGEST_LINK_NAME
    assert len(HERE.veth(MAX_HOSTS)) <= _LONGEST_LINK_NAME


def test_the_subnet_is_a_24_of_the_labs_network() -> None:
    assert HERE.subnet.prefixlen == 24
    assert HERE.subnet.subnet_of(IPv4Network("10.64.0.0/10"))


def test_addresses_are_all_different_and_inside_the_subnet() -> None:
    addresses = {HERE.controller_address, *(HERE.address(n) for n in range(1, MAX_HOSTS + 1))}
    assert len(addresses) == MAX_HOSTS + 1
    assert all(address in HERE.subnet for address in addresses)
    assert HERE.subnet.broadcast_address not in addresses


def test_host_one_has_address_eleven() -> None:
    assert HERE.address(1) == HERE.subnet[11]


@pytest.mark.parametrize("n", [0, MAX_HOSTS + 1])
def test_a_host_number_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"host number {n}"):
        HERE.address(n)


def test_the_patterns_of_one_lab_match_its_hosts_only() -> None:
    assert Path(HERE.machine(2)).match(HERE.machine_pattern)
    assert Path(HERE.cgroup(2)).match(HERE.cgroup_pattern)
    assert not Path(ELSEWHERE.cgroup(2)).match(HERE.cgroup_pattern)


def test_services_are_told_by_the_controllers_address() -> None:
    assert HERE.hub_url == f"http://{HERE.controller_address}:8080"
    assert HERE.git_url == f"git://{HERE.controller_address}/llama.cpp.git"


def test_a_host_has_the_distribution_of_its_disk(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path / "state", tmp_path / "cache")
    assert platform(layout, 1) == "debian-12"
    release = layout.disk(1) / "base" / "usr" / "lib" / "os-release"
    release.parent.mkdir(parents=True)
    release.write_text('PRETTY_NAME="Ubuntu 24.04.1 LTS"\nID=ubuntu\nVERSION_ID="24.04"\n')
    assert platform(layout, 1) == "ubuntu-24.04"
