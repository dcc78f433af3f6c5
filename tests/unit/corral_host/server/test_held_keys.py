"""Keys that a host has, as its helper reports them: names, and the texts on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

held_keys = helper_module("server.held_keys")
KEY, OTHER = "canary-0123456789-abcdefghij", "second-0123456789-abcdefghij"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """One instance without any files, and no gateway."""
    monkeypatch.setattr(held_keys, "show", lambda *_: {"MainPID": "0"})
    instance = {
        "name": "chat", "unit": "corral-chat.service",
        "key_path": str(tmp_path / "keys/chat"), "unit_path": str(tmp_path / "units/chat"),
    }  # fmt: skip
    for folder in ("keys", "units"):
        (tmp_path / folder).mkdir()
    monitoring = {"alerts": str(tmp_path / "alerts"), "grafana": str(tmp_path / "grafana")}
    return {
        "instances": [instance], "gateway": str(tmp_path / "gateway"), "monitoring": monitoring,
    }  # fmt: skip


def test_a_bare_host_has_none(asked: dict[str, Any]) -> None:
    assert held_keys.held(asked) == {"names": []}
    none: dict[str, dict[str, str]] = {"alerts": {}, "grafana": {}}
    assert held_keys.texts(asked) == {"instances": {}, "gateway": {}, "monitoring": none}


def test_secrets_of_the_monitoring_are_called_as_their_files(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "alerts/folder").mkdir(parents=True)
    (tmp_path / "alerts/ops").write_text("t0ken")
    assert held_keys.texts(asked)["monitoring"] == {"alerts": {"ops": "t0ken"}, "grafana": {}}
    assert held_keys.held(asked) == {"names": []}


def test_a_key_file_is_told_as_it_is(asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "keys/chat").write_text(f"{KEY}\n{OTHER}\n")
    assert held_keys.held(asked) == {"names": ["chat"]}
    assert held_keys.texts(asked)["instances"] == {"chat": f"{KEY}\n{OTHER}\n"}


def test_keys_that_wait_for_an_activation_are_in_use_by_nobody(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "keys/chat").write_text(f"{KEY}\n")
    helper_module("server.staged_keys").write(tmp_path / "keys/chat", f"{OTHER}\n")
    assert held_keys.texts(asked)["instances"] == {"chat": f"{KEY}\n"}


def test_an_instance_without_its_file_has_the_keys_that_its_server_was_started_with(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "units/chat").write_text("[Unit]\n")
    assert held_keys.held(asked) == {"names": ["chat"]}
    assert held_keys.texts(asked)["instances"] == {}
    monkeypatch.setattr(held_keys, "loaded", lambda _: f"{KEY}\n")
    assert held_keys.texts(asked)["instances"] == {"chat": f"{KEY}\n"}


def test_a_gateways_keys_are_called_as_the_store_calls_them(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "gateway/ab12"
    folder.mkdir(parents=True)
    (folder / "clients-small").write_text(f"{KEY}\n")
    (folder / "clients-large").write_text(f"{OTHER}\n")
    (folder / "upstream").write_text(f"small {KEY}x\nlarge {OTHER}x\n")
    (folder / "metrics").write_text(f"{KEY}m\n")
    (folder / "haproxy.cfg").write_text("global\n")
    assert held_keys.held(asked) == {"names": []}, "no generation is installed"
    (tmp_path / "gateway/current").symlink_to("ab12")
    texts = {
        "gateway-small": f"{KEY}\n", "gateway-large": f"{OTHER}\n", "gateway_metrics": f"{KEY}m\n",
        "upstream-small": f"{KEY}x\n", "upstream-large": f"{OTHER}x\n",
    }  # fmt: skip
    found = held_keys.texts(asked)
    assert (found["instances"], found["gateway"]) == ({}, texts)
    assert sorted(held_keys.held(asked)["names"]) == sorted(texts)
