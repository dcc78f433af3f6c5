"""Processes of tests that run at once get ports of their own."""

from __future__ import annotations

import socket
import subprocess
import sys

from tests.ports import free_port, free_ports
from tests.samples import ROOT


def test_another_process_of_tests_gets_others() -> None:
    program = "from tests.ports import free_ports; print(*free_ports(3, in_a_row=2))"
    mine = free_ports(3, in_a_row=2)
    asked = [sys.executable, "-c", program]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    others = {int(port) for port in done.stdout.split()}
    assert len(others) == 3
    assert {port // 100 for port in mine}.isdisjoint(port // 100 for port in others)


def test_a_port_that_somebody_has_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        taken = server.getsockname()[1]
        assert taken not in free_ports(3)
        assert all(taken not in (port, port + 1) for port in free_ports(3, in_a_row=2))
