"""Chores of an operator on a serving fleet: each under load, verified from two clones."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from corral.store.api_keys import keys_in
from lab.chaos import material
from lab.chaos.desk import Desk
from lab.chaos.fleet import ALIAS
from lab.chaos.operators import INVENTORY, ended
from lab.chaos.play import OLD
from lab.chaos.wanted import GATEWAY_PORT, Keys
from lab.edits import edited, written

NEW_QUANT: Keys = {"quant": "F16"}
MOVED: Keys = {"port": 8051}
OPEN: Keys = {"address": "0.0.0.0"}  # noqa: S104 - the lab's own network
# Long enough for all commands of the second clone meanwhile.
SOAK = ("--soak", "45")
OTHER_PORT = 8010
_PROFILE = f"catalog/profiles/{material.PROFILE}.toml"
_GOLDEN = "max_tokens = 24"

Work = Callable[[Desk], None]


@dataclass(frozen=True)
class Chore:
    """One line of the second table.

    + base, gateway: inventory keys of every instance and of the gateway at its beginning
    """

    name: str
    change: str
    how: str
    work: Work
    base: Keys = field(default_factory=lambda: OLD)
    gateway: Keys = field(default_factory=dict)


def there_and_back(**instance: Any) -> Work:
    """Change every instance, then change it back."""

    def work(desk: Desk) -> None:
        for keys in (instance, {}):
            desk.want(**keys)
            desk.rollout()
            desk.agree()

    return work


def declined(**instance: Any) -> Work:
    """Stage a change and decline it; a restart then must use the old state."""

    def work(desk: Desk) -> None:
        desk.want(**instance)
        desk.decline()
        desk.agree(green=False)
        desk.want()
        desk.corral("restart", desk.server(1))
        desk.agree()

    return work


def declined_pool_key(desk: Desk) -> None:
    """Stage a new key between gateway and servers, and decline it."""
    path = desk.fleet.gateway_keys(f"upstream-{ALIAS}")
    with written(path, f"{_new_key()}\n{path.read_text()}"):
        desk.decline()
        desk.agree(green=False)
    desk.corral("restart", desk.server(1))
    desk.agree()


def declined_instance_key(desk: Desk) -> None:
    """Stage a new key of one server and decline it; adopt the old one from its host."""
    desk.corral("keys", "new", desk.server(1), "--replace")
    desk.decline()
    desk.agree(green=False)
    desk.corral("restart", desk.server(1))
    desk.corral("keys", "adopt", desk.server(1), "--replace")
    desk.agree()


def pool_key(desk: Desk) -> None:
    """Replace the key between gateway and servers: first both keys, then only the new one."""
    path = desk.fleet.gateway_keys(f"upstream-{ALIAS}")
    new, old = f"{_new_key()}\n", path.read_text()
    for text in (new + old, new):
        path.write_text(text)
        desk.rollout()
        desk.agree()


def instance_keys(desk: Desk) -> None:
    """Replace the keys of each server's own clients."""
    desk.corral("keys", "new", *desk.servers, "--replace")
    desk.rollout()
    desk.agree()


def client_keys(desk: Desk) -> None:
    """Add a client at the gateway, then remove it."""
    path, key = desk.fleet.gateway_keys(f"gateway-{ALIAS}"), _new_key()
    with written(path, f"{path.read_text()}\n{key}\n"):
        desk.rollout_of_gateway()
        desk.expect("a new client's answer", desk.status(key), 200)
        desk.agree()
    desk.rollout_of_gateway()
    desk.expect("the answer to a removed client", desk.status(key), 401)
    desk.agree()


def weights(desk: Desk) -> None:
    """Change the weight of one server, and revert that rollout."""
    desk.want_gateway(aliases={ALIAS: {"port": GATEWAY_PORT, "weights": {desk.server(3): 60}}})
    printed = desk.rollout_of_gateway().text
    desk.agree()
    number = printed.partition("rollout ")[2].partition(":")[0]
    desk.judged("revert", desk.fleet.clone.corral("revert", "--rollout", number))
    desk.want()
    desk.agree()


def alias_more(desk: Desk) -> None:
    """Move one server to an alias of its own, with a port at the gateway, and back."""
    ports = {ALIAS: {"port": GATEWAY_PORT}, material.OTHER_ALIAS: {"port": OTHER_PORT}}
    desk.want_gateway(own={3: {"profile": material.OTHER_PROFILE}}, aliases=ports)
    desk.rollout()
    desk.agree()
    key = keys_in(desk.fleet.gateway_keys(f"gateway-{material.OTHER_ALIAS}").read_text())[0]
    desk.expect("the other alias's answer", desk.status(key, OTHER_PORT), 200)
    desk.want()
    desk.rollout()
    desk.agree()


def certificate(desk: Desk) -> None:
    """Replace the gateway's certificate."""
    new = material.CERTIFICATES[1]
    desk.want_gateway(tls_certificate=new)
    desk.rollout_of_gateway()
    desk.expect("the new certificate is shown", desk.shows_certificate(new), True)
    desk.agree()


def gate(desk: Desk) -> None:
    """Change a golden prompt: it runs against the serving servers, and no model is loaded."""
    with edited(desk.fleet.checkout.path / _PROFILE, _GOLDEN, "max_tokens = 20"):
        with desk.untouched():
            desk.rollout(says="without a restart")
        desk.agree()
    desk.rollout()
    desk.agree()


def lost_store(desk: Desk) -> None:
    """A clone without the keys is refused and adopts them; then it verifies like the first."""
    other = desk.second(keys_folder=str(desk.empty_store()))
    with desk.untouched():
        for name, done in (("deploy", other.deploy()), ("rollout", ended(other.start("rollout")))):
            desk.judged(f"{name} without keys", done, code=1, says="corral keys adopt")
        desk.expect("verify without keys is red", bool(other.findings()), True)
        desk.judged("keys adopt", other.corral("keys", "adopt", "-i", INVENTORY))
    desk.agree(second=other)


def second_clone(desk: Desk) -> None:
    """Commands of a second operator while a rollout soaks."""
    desk.want(**NEW_QUANT)
    other = desk.second()
    first = desk.fleet.clone.start("rollout", *SOAK)
    first.wait_for("soaks for")
    with desk.untouched():
        for name, done in (("deploy", other.deploy()), ("rollout", ended(other.start("rollout")))):
            desk.judged(f"{name} of a second clone", done, code=1, says="is rolling out")
    desk.judged("rollout", ended(first))
    desk.agree()


def restart_and_stop(desk: Desk) -> None:
    """Restart and stop drain a member first, and refuse to touch the last one."""
    first, others, last = desk.server(1), desk.servers[:2], desk.server(3)
    desk.corral("restart", first)
    desk.agree()
    desk.corral("stop", *others)
    desk.agree(green=False)
    with desk.untouched():
        for verb in ("restart", "stop"):
            desk.corral(verb, last, code=1, says="is the last server")
    desk.corral("start", *others)
    desk.agree()


def corrected_golden(desk: Desk) -> None:
    """A good change fails by a wrong golden prompt, which is corrected; then two reverts."""
    desk.want(**NEW_QUANT)
    wrong = f'{_GOLDEN}\nexact = "never said"'
    with edited(desk.fleet.checkout.path / _PROFILE, _GOLDEN, wrong):
        desk.rollout(code=10, says="golden")
    desk.rollout()
    desk.agree()
    for keys in ({}, NEW_QUANT):
        desk.corral("revert", *desk.servers)
        desk.want(**keys)
        desk.agree()


def _new_key() -> str:
    return f"chaos-{secrets.token_urlsafe(24)}"
