"""The served page: on loopback unless the operator says otherwise, for reading alone."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest

from corral.errors import CorralError
from corral.page.html import fleet_html
from corral.page.page_server import Address, PageServer, address_of
from tests.samples import ROOT
from tests.unit.page.samples import fleet


@pytest.fixture
def server() -> Iterator[PageServer]:
    found = PageServer(Address("127.0.0.1", 0))
    with found.running():
        yield found


def asked(
    server: PageServer, method: str = "GET", path: str = "/", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    link = http.client.HTTPConnection("127.0.0.1", server.address.port, timeout=120)
    link.request(method, path, headers=headers)
    answer = link.getresponse()
    found = answer.status, answer.read(), answer.headers
    link.close()
    return found


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8090", Address("127.0.0.1", 8090)),
        ("[::1]:8090", Address("::1", 8090)),
        ("8090", Address("127.0.0.1", 8090)),
        ("127.9.9.9:0", Address("127.9.9.9", 0)),
    ],
)
def test_addresses_of_this_machine(text: str, address: Address) -> None:
    assert address_of(text, exposed=False) == address


@pytest.mark.parametrize("text", ["", "localhost:80", "127.0.0.1", "127.0.0.1:x", "1.2.3.4:99999"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(CorralError, match=r"give one such as 127\.0\.0\.1:8090"):
        address_of(text, exposed=True)


@pytest.mark.parametrize("text", ["0.0.0.0:8090", "[::]:8090", "10.0.0.1:8090"])
def test_an_address_that_others_reach_is_used_only_when_that_is_said(text: str) -> None:
    with pytest.raises(CorralError, match="--exposed"):
        address_of(text, exposed=False)
    assert address_of(text, exposed=True).port == 8090


def test_a_port_that_is_taken(server: PageServer) -> None:
    with pytest.raises(CorralError, match="choose another port"):
        PageServer(server.address)


def test_the_newest_page_is_answered_with_a_policy(server: PageServer) -> None:
    assert asked(server)[0] == 503
    server.show(fleet_html(fleet(), ROOT / "templates", refresh_seconds=5))
    status, body, headers = asked(server)
    assert (status, b"gpu-03" in body) == (200, True)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "script-src 'sha256-" in policy
    assert headers["Cache-Control"] == "no-store"
    assert asked(server, "HEAD")[:2] == (200, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_but_reading(server: PageServer, method: str) -> None:
    status, _, headers = asked(server, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/x", "/../etc/passwd", "/?x", "/%00"])
def test_there_is_one_page(server: PageServer, path: str) -> None:
    server.show("<p>")
    assert asked(server, path=path)[0] == 404


def test_a_name_of_another_site_that_leads_here_gets_nothing(server: PageServer) -> None:
    server.show("<p>secret</p>")
    status, body, _ = asked(server, Host=f"evil.example.com:{server.address.port}")
    assert (status, b"secret" in body) == (421, False)
    assert asked(server, Host=f"localhost:{server.address.port}")[0] == 200


def test_what_is_no_request_ends_with_an_answer(server: PageServer) -> None:
    with socket.create_connection(("127.0.0.1", server.address.port), timeout=120) as link:
        link.sendall(b"\x16\x03\x01\x02<script>\r\n\r\n")
        answer = link.makefile("rb").read()
    assert b"<script>" not in answer
    assert asked(server)[0] == 503
