"""Server lines of a gateway's configuration: read, and changed without touching anything else."""

from __future__ import annotations

from corral_shared.gateway_lines import Line, base, lines_of, server_lines, with_lines

from tests.samples import ROOT

GOLDEN = (ROOT / "tests/data/gateway/haproxy.cfg").read_text()
TWO = """backend small
  default-server check
  server a_chat 10.0.0.1:8001 weight 100
  server b_chat [fd00::1]:8001 weight 25

backend other
  server c_chat c.lan:8001 weight 0
"""


def line(pool: str, server: str, place: str, weight: str = "100") -> Line:
    return {"pool": pool, "server": server, "place": place, "weight": weight}


def test_lines_are_read_with_their_pool() -> None:
    assert server_lines(TWO) == [
        line("small", "a_chat", "10.0.0.1:8001"),
        line("small", "b_chat", "[fd00::1]:8001", "25"),
        line("other", "c_chat", "c.lan:8001", "0"),
    ]
    assert len(server_lines(GOLDEN)) == GOLDEN.count("\n  server ")


def test_a_server_gets_a_second_line_beside_its_first_and_loses_it_again() -> None:
    old, new = lines_of(TWO, "a_chat")[0], line("small", "a_chat:next", "10.0.0.1:9001")
    both = with_lines(TWO, "a_chat", [old, new])
    assert both == TWO.replace(
        "  server b_chat", "  server a_chat:next 10.0.0.1:9001 weight 100\n  server b_chat"
    )
    assert [base(one["server"]) for one in lines_of(both, "a_chat")] == ["a_chat", "a_chat"]
    assert with_lines(both, "a_chat", [old]) == TWO
    moved = with_lines(both, "a_chat", [{**new, "server": "a_chat"}])
    assert moved == TWO.replace("10.0.0.1:8001", "10.0.0.1:9001")


def test_a_server_goes_to_another_pool_and_to_none_that_is_not_there() -> None:
    gone = TWO.replace("  server a_chat 10.0.0.1:8001 weight 100\n", "")
    there = with_lines(TWO, "a_chat", [line("other", "a_chat", "10.0.0.1:8001")])
    assert there == f"{gone}  server a_chat 10.0.0.1:8001 weight 100\n"
    assert with_lines(TWO, "a_chat", [line("third", "a_chat", "10.0.0.1:8001")]) == gone


def test_whatever_is_written_again_is_the_same_text() -> None:
    for text in (GOLDEN, TWO):
        for one in server_lines(text):
            assert with_lines(text, one["server"], [one]) == text


def test_a_limit_of_requests_stays_with_its_server() -> None:
    limited = TWO.replace("8001 weight 100", "8001 weight 100 maxconn 3")
    one, other, _ = server_lines(limited)
    assert one.get("limit") == "3"
    assert "limit" not in other
    assert with_lines(limited, "a_chat", [one]) == limited
    moved = with_lines(limited, "a_chat", [{**one, "place": "10.0.0.1:9001"}])
    assert "  server a_chat 10.0.0.1:9001 weight 100 maxconn 3\n" in moved
