"""What a failed lab test leaves to read."""

from __future__ import annotations

import subprocess

from tests.lab import evidence


def ran(name: str, printed: str) -> None:
    done = subprocess.CompletedProcess(["corral", name], 3, stdout=printed, stderr="why\n")
    evidence.note(done)


def test_the_end_of_what_the_last_commands_printed_is_kept() -> None:
    evidence.forget()
    ran("first", "gone\n")
    for number in range(8):
        ran(f"run-{number}", "".join(f"line {n}\n" for n in range(60)))
    text = evidence.commands()
    assert "first" not in text
    assert "$ corral run-0\nline 21\n" in text
    assert text.endswith("line 59\nwhy\n(exit code 3)")
    evidence.forget()
    assert evidence.commands() == ""
