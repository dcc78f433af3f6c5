"""The files of a gateway: what HAProxy is told, and where the secrets are."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.gateway.files import GatewayFiles, gateway_files
from corral.keys import keys_in
from corral.settings import HostPaths
from tests.samples import ROOT
from tests.unit.gateway_samples import fleet, make_keys, plan
from tests.unit.helper_modules import helper_module

GOLDEN = ROOT / "tests/data/gateway/haproxy.cfg"
PEM = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"


def made(keys: Path, folder: str = "/etc/corral/gateway", **gateway: Any) -> GatewayFiles:
    hosts = fleet(keys, **gateway)
    paths = HostPaths(gateway=folder)
    planned = plan(hosts).model_copy(update={"folder": folder})
    make_keys(hosts)
    return gateway_files(hosts[-1], planned, paths=paths, templates=ROOT / "templates")


def test_the_configuration_is_the_golden_one(tmp_path: Path) -> None:
    found = made(tmp_path)
    text = found.files["haproxy.cfg"].replace(found.generation, "GENERATION")
    assert text == GOLDEN.read_text(), f"compare with {GOLDEN}"


def test_secrets_are_in_files_of_their_own(tmp_path: Path) -> None:
    found = made(tmp_path)
    stored = {f.name: keys_in(f.read_text()) for f in (tmp_path / "gw").iterdir()}
    assert found.files["clients-small"] == f"{stored['gateway-small'][0]}\n"
    assert found.files["upstream"] == f"small {stored['upstream-small'][0]}\n"
    assert found.files["metrics"] == f"{stored['gateway_metrics'][0]}\n"
    secrets = [key for keys in stored.values() for key in keys]
    shown = (found.files["haproxy.cfg"], found.files["haproxy.service.conf"], repr(found))
    assert not [text for text in shown for key in secrets if key in text]


def test_of_several_keys_it_shows_the_first_so_that_keys_can_be_changed(tmp_path: Path) -> None:
    made(tmp_path)
    store = tmp_path / "gw/upstream-small"
    store.write_text(f"{'n' * 40}\n{store.read_text()}")
    assert made(tmp_path).files["upstream"] == f"small {'n' * 40}\n"


def test_the_generation_covers_configuration_and_secrets(tmp_path: Path) -> None:
    first = made(tmp_path).generation
    assert made(tmp_path).generation == first
    assert made(tmp_path, metrics_port=8405).generation != first
    with (tmp_path / "gw/gateway-small").open("a") as store:
        store.write("another-client-0123456789\n")
    assert made(tmp_path).generation != first


def test_the_host_comes_to_the_same_generation(tmp_path: Path) -> None:
    setup = helper_module("gateway_setup")
    found = made(tmp_path / "keys", folder=str(tmp_path / "gateway"))
    folder = tmp_path / "gateway" / found.generation
    setup.write(folder, dict(found.files))
    assert setup.digest(folder) == found.generation
    assert setup.is_private(folder)
    (folder / "upstream").write_text("small other\n")
    assert setup.digest(folder) != found.generation


def test_a_certificate_makes_all_addresses_tls(tmp_path: Path) -> None:
    pem = tmp_path / "tls.pem"
    pem.write_text(PEM)
    found = made(tmp_path / "keys", tls_certificate=str(pem))
    binds = [line for line in found.files["haproxy.cfg"].splitlines() if "  bind " in line]
    assert len(binds) == 2
    assert all(f"ssl crt /etc/corral/gateway/{found.generation}/tls.pem" in b for b in binds)
    assert found.files["tls.pem"] == PEM


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "not readable"), (PEM[:28], "PRIVATE KEY"), (PEM[28:], "no CERTIFICATE")],
)
def test_a_certificate_without_all_it_needs_is_refused(
    tmp_path: Path, text: str | None, said: str
) -> None:
    pem = tmp_path / "tls.pem"
    if text is not None:
        pem.write_text(text)
    with pytest.raises(CorralError, match=said):
        made(tmp_path / "keys", tls_certificate=str(pem))


def test_what_another_program_holds_is_refused_before_haproxy_tries(tmp_path: Path) -> None:
    setup, fault = helper_module("gateway_setup"), helper_module("tools").HostError
    found = made(tmp_path / "keys", folder=str(tmp_path / "gateway"), address="::1")
    folder = tmp_path / "gateway" / found.generation
    setup.write(folder, dict(found.files))
    assert setup.listens(folder) == {("::1", "8000"), ("::1", "8404")}
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = str(stranger.getsockname()[1])
        with pytest.raises(fault, match=f"cannot listen on 127.0.0.1:{port}"):
            setup.refuse_taken({("127.0.0.1", port)})
    setup.refuse_taken({("127.0.0.1", port)})
    with pytest.raises(fault, match=r"cannot listen on 192\.0\.2\.1"):
        setup.refuse_taken({("192.0.2.1", "8000")})
