"""The files of a gateway: what HAProxy is told, and where the secrets are."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.gateway.files import GatewayFiles, gateway_files
from corral.paths import HostPaths
from corral.planning.gateways import gateways
from corral.store.api_keys import keys_in
from tests.samples import ROOT, catalog
from tests.unit.gateway_samples import fleet, make_keys, plan
from tests.unit.helper_modules import helper_module

pytestmark = pytest.mark.slow

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


def test_clients_with_a_name_are_named_in_the_log_and_their_keys_are_not(tmp_path: Path) -> None:
    """Without a named client the configuration stays as it was."""
    before = made(tmp_path)
    assert "names-" not in "".join(before.files) + before.files["haproxy.cfg"]
    path = tmp_path / "gw/gateway-small"
    key = "k" * 24
    path.write_text(f"{path.read_text()}# key of client alice\n{key}\n")
    found = made(tmp_path)
    digest = hashlib.sha256(key.encode()).hexdigest().upper()
    assert found.files["names-small"] == f"{digest} alice\n"
    assert found.files["clients-small"].splitlines()[-1] == key
    folder = f"/etc/corral/gateway/{found.generation}"
    lines = found.files["haproxy.cfg"].splitlines()
    (at,) = [n for n, line in enumerate(lines) if f",map_str({folder}/names-small,-)" in line]
    assert lines[at + 1] == "  http-request capture var(txn.client) len 64"
    # After the key was proved: a client without one has no name.
    assert "unless bearer known" in "".join(lines[: at - 1])
    assert key not in found.files["haproxy.cfg"]


def test_a_check_hands_out_nothing(tmp_path: Path) -> None:
    """Whoever listens on a server's port is asked every two seconds."""
    found = made(tmp_path)
    checks = [line for line in found.files["haproxy.cfg"].splitlines() if "http-check" in line]
    assert checks == [
        "  http-check send meth GET uri /v1/health",
        """  http-check expect rstring '"status":"ok"|"File Not Found"'""",
    ]


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
    setup = helper_module("gateway.generations")
    found = made(tmp_path / "keys", folder=str(tmp_path / "gateway"))
    folder = tmp_path / "gateway" / found.generation
    setup.write(folder, dict(found.files))
    assert setup.digest(setup.unnamed(folder)) == found.generation
    assert setup.is_private(folder)
    (folder / "upstream").write_text("small other\n")
    assert setup.digest(setup.unnamed(folder)) != found.generation


@pytest.mark.parametrize(
    ("part", "mode"),
    [("upstream", mode) for mode in (0o600, 0o604, 0o644, 0o660)]
    + [(".", mode) for mode in (0o700, 0o755, 0o770)]
    + [("..", 0o700)],
)
def test_a_generation_that_others_reach_or_haproxy_does_not_counts_as_edited(
    tmp_path: Path, part: str, mode: int
) -> None:
    setup = helper_module("gateway.generations")
    found = made(tmp_path / "keys", folder=str(tmp_path / "gateway"))
    folder = tmp_path / "gateway" / found.generation
    setup.write(folder, dict(found.files))
    before = (folder / part).stat().st_mode
    (folder / part).chmod(mode)
    assert not setup.is_private(folder)
    (folder / part).chmod(before)
    assert setup.is_private(folder)


def test_a_group_other_than_haproxys_does_not_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = helper_module("gateway.generations")
    found = made(tmp_path / "keys", folder=str(tmp_path / "gateway"))
    folder = tmp_path / "gateway" / found.generation
    setup.write(folder, dict(found.files))
    monkeypatch.setattr(setup, "readers", lambda: folder.stat().st_gid + 1)
    assert not setup.is_private(folder)


def installed(tmp_path: Path, setup: Any) -> dict[str, Any]:
    """A gateway whose files are in place; gives its plan."""
    found = made(tmp_path / "keys", folder=str(tmp_path / "gateway"))
    root = tmp_path / "gateway"
    setup.write(root / found.generation, dict(found.files))
    (root / "current").symlink_to(found.generation)
    place = setup.drop_in_path(tmp_path)
    place.parent.mkdir()
    place.write_text(found.files["haproxy.service.conf"])
    return {"folder": str(root), "units": str(tmp_path)}


def edit(path: Path) -> None:
    with path.open("a") as file:
        file.write("# by hand\n")


@pytest.mark.parametrize("what", ["haproxy.cfg", "drop-in", "no drop-in", "current", "beside"])
def test_what_the_next_reload_would_use_is_compared(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, check = helper_module("gateway.generations"), helper_module("gateway.probes")
    changes = helper_module("instance.unit_changes")
    plan = installed(tmp_path, setup)
    current, place = Path(plan["folder"], "current"), setup.drop_in_path(tmp_path)
    monkeypatch.setattr(changes, "SEARCHED", (str(tmp_path),))
    monkeypatch.setattr(changes, "show", lambda *_: {"DropInPaths": str(place)})
    monkeypatch.setattr(setup, "unit_file_state", lambda _: "enabled")
    monkeypatch.setattr(setup, "running_generation", lambda: "x")
    assert check.unit(plan, None) == (True, "as Corral wrote it")
    assert setup.gateway_state(plan, plan["units"])["installed"] == current.readlink().name
    if what == "haproxy.cfg":
        edit(current / "haproxy.cfg")
    elif what == "drop-in":
        edit(place)
    elif what == "no drop-in":
        place.unlink()
    elif what == "current":
        current.unlink()
    else:
        edit(place.with_name("zz.conf"))
    ok, told = check.unit(plan, None)
    assert not ok
    names = {"haproxy.cfg": current.resolve(), "current": current}
    assert str(names.get(what, place if "drop-in" in what else place.with_name("zz.conf"))) in told
    whole = setup.gateway_state(plan, plan["units"])["installed"] is not None
    assert whole is (what == "beside")


@pytest.mark.parametrize("state", ["enabled", "disabled", "masked"])
def test_a_gateway_that_no_boot_starts_is_told_and_installed_again(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, check = helper_module("gateway.generations"), helper_module("gateway.probes")
    plan = installed(tmp_path, setup)
    for module in (setup, check):
        monkeypatch.setattr(module, "unit_file_state", lambda _: state)
    monkeypatch.setattr(setup, "running_generation", lambda: "x")
    found = setup.gateway_state(plan, plan["units"])["installed"]
    assert (found is not None) is (state == "enabled")
    told = "starts at boot" if state == "enabled" else f"haproxy.service is {state}"
    assert check.enabled(plan, None) == (state == "enabled", told)


@pytest.mark.parametrize(("before", "done"), [("[Service]\n", "restart"), (None, "reload")])
def test_other_confines_begin_with_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, done: str
) -> None:
    """A reload would leave the master where it was started."""
    setup = helper_module("gateway.generations")
    found = made(tmp_path / "keys", folder=str(tmp_path / "gateway"))
    setup.write(tmp_path / "gateway" / found.generation, dict(found.files))
    place = setup.drop_in_path(tmp_path)
    place.parent.mkdir()
    place.write_text(found.files["haproxy.service.conf"] if before is None else before)
    ordered: list[str] = []
    monkeypatch.setattr(setup, "output", lambda *words: ordered.append(words[1]))
    monkeypatch.setattr(setup, "runs_ours", lambda _: True)
    monkeypatch.setattr(setup, "save", lambda _: ordered.append("save"))
    # Right after a reload the old worker answers, of the same generation where files were edited.
    workers = iter(["7", "7", "7", "8"])
    monkeypatch.setattr(setup, "current_worker", lambda: (found.generation, next(workers)))
    monkeypatch.setattr(setup.time, "sleep", lambda _: None)
    document = {"folder": str(tmp_path / "gateway"), "units": str(tmp_path)}
    setup.switch(document, found.generation)
    assert ordered == ["daemon-reload", "enable", "save", done]
    assert list(workers) == [], "waited for the new one"


@pytest.mark.parametrize(("port", "capability"), [(443, "CAP_NET_BIND_SERVICE"), (8443, "")])
def test_only_a_low_port_has_a_capability(tmp_path: Path, port: int, capability: str) -> None:
    small = {"port": port, "may_differ": ["context", "slots"]}
    drop_in = made(tmp_path, aliases={"small": small}).files["haproxy.service.conf"]
    assert f"\nCapabilityBoundingSet={capability}\n" in drop_in
    assert ("\nPrivateUsers=yes\n" in drop_in) is not bool(capability)


def test_root_imports_nothing_of_where_a_reload_begins(tmp_path: Path) -> None:
    drop_in = made(tmp_path).files["haproxy.service.conf"]
    assert drop_in.count("python3") == drop_in.count("+/usr/bin/python3 -I ") == 1


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
    setup, fault = helper_module("gateway.generations"), helper_module("system.commands").HostError
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


def test_a_server_with_few_threads_keeps_one_for_the_check(tmp_path: Path) -> None:
    """ik_llama.cpp has two threads more than slots; mainline adds threads as it needs them."""
    hosts = fleet(tmp_path)
    shipped = catalog()
    engines = {
        "llama.cpp": shipped.engines["llama.cpp"].model_copy(update={"kind": "ik_llama.cpp"})
    }
    planned = gateways(hosts, shipped.model_copy(update={"engines": engines}), HostPaths())["gw"]
    make_keys(hosts)
    found = gateway_files(hosts[-1], planned, paths=HostPaths(), templates=ROOT / "templates")
    text = found.files["haproxy.cfg"]
    assert "server one_chat 10.0.0.11:8001 weight 100 maxconn 3\n" in text
    assert "server one_long 10.0.0.1:8002 weight 100 maxconn 2\n" in text
    assert "  timeout queue 60m\n" in text
    unlimited = made(tmp_path).files["haproxy.cfg"]
    assert "timeout queue" not in unlimited
    assert " maxconn " not in unlimited.partition("backend ")[2]
