"""What an operator does to a fleet that serves: each under load, looked at from two clones."""

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
# Long enough for all that a second clone tries meanwhile.
SOAK = ("--soak", "45")
OTHER_PORT = 8010
_PROFILE = f"catalog/profiles/{material.PROFILE}.toml"
_GOLDEN = "max_tokens = 24"

Work = Callable[[Desk], None]


@dataclass(frozen=True)
class Chore:
    """One line of the second table.

    + base, gateway: keys of every instance and of the gateway that it begins with
    """

    name: str
    change: str
    how: str
    work: Work
    base: Keys = field(default_factory=lambda: OLD)
    gateway: Keys = field(default_factory=dict)


def there_and_back(**instance: Any) -> Work:
    """A change of every instance, and the same taken away again."""

    def work(desk: Desk) -> None:
        for keys in (instance, {}):
            desk.want(**keys)
            desk.rollout()
            desk.agree()

    return work


def declined(**instance: Any) -> Work:
    """A change is staged and not wanted; whoever restarts then gets what was there."""

    def work(desk: Desk) -> None:
        desk.want(**instance)
        desk.decline()
        desk.agree(green=False)
        desk.want()
        desk.corral("restart", desk.server(1))
        desk.agree()

    return work


def declined_pool_key(desk: Desk) -> None:
    """A new key between gateway and servers is staged and not wanted."""
    path = desk.fleet.gateway_keys(f"upstream-{ALIAS}")
    with written(path, f"{_new_key()}\n{path.read_text()}"):
        desk.decline()
        desk.agree(green=False)
    desk.corral("restart", desk.server(1))
    desk.agree()


def declined_instance_key(desk: Desk) -> None:
    """A new key of one server is staged and not wanted; the old one is reverted from its host."""
    desk.corral("keys", "new", desk.server(1), "--replace")
    desk.decline()
    desk.agree(green=False)
    desk.corral("restart", desk.server(1))
    desk.corral("keys", "adopt", desk.server(1), "--replace")
    desk.agree()


def pool_key(desk: Desk) -> None:
    """Another key between gateway and servers: both, then the new one alone."""
    path = desk.fleet.gateway_keys(f"upstream-{ALIAS}")
    new, old = f"{_new_key()}\n", path.read_text()
    for text in (new + old, new):
        path.write_text(text)
        desk.rollout()
        desk.agree()


def instance_keys(desk: Desk) -> None:
    """Another key for each server's own clients."""
    desk.corral("keys", "new", *desk.servers, "--replace")
    desk.rollout()
    desk.agree()


def client_keys(desk: Desk) -> None:
    """One more client at the gateway, and the same taken away again."""
    path, key = desk.fleet.gateway_keys(f"gateway-{ALIAS}"), _new_key()
    with written(path, f"{path.read_text()}\n{key}\n"):
        desk.rollout_of_gateway()
        desk.expect("a new client's answer", desk.status(key), 200)
        desk.agree()
    desk.rollout_of_gateway()
    desk.expect("the answer to a client that was taken away", desk.status(key), 401)
    desk.agree()


def weights(desk: Desk) -> None:
    """Another share for one server, and its rollout reverted."""
    desk.want_gateway(aliases={ALIAS: {"port": GATEWAY_PORT, "weights": {desk.server(3): 60}}})
    told = desk.rollout_of_gateway().text
    desk.agree()
    number = told.partition("rollout ")[2].partition(":")[0]
    desk.judged("revert", desk.fleet.clone.corral("revert", "--rollout", number))
    desk.want()
    desk.agree()


def alias_more(desk: Desk) -> None:
    """One server goes to an alias of its own, with its port at the gateway, and comes back."""
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
    """A new certificate at the gateway."""
    new = material.CERTIFICATES[1]
    desk.want_gateway(tls_certificate=new)
    desk.rollout_of_gateway()
    desk.expect("the new certificate is shown", desk.shows_certificate(new), True)
    desk.agree()


def gate(desk: Desk) -> None:
    """Another golden for the same servers: run against what serves, and nothing is loaded."""
    with edited(desk.fleet.checkout.path / _PROFILE, _GOLDEN, "max_tokens = 20"):
        with desk.untouched():
            desk.rollout(says="without a restart")
        desk.agree()
    desk.rollout()
    desk.agree()


def lost_store(desk: Desk) -> None:
    """A clone without the keys is refused, takes them over, and then says what the first says."""
    other = desk.second(keys_folder=str(desk.empty_store()))
    with desk.untouched():
        for name, done in (("deploy", other.deploy()), ("rollout", ended(other.start("rollout")))):
            desk.judged(f"{name} without keys", done, code=1, says="corral keys adopt")
        desk.expect("verify without keys is red", bool(other.findings()), True)
        desk.judged("keys adopt", other.corral("keys", "adopt", "-i", INVENTORY))
    desk.agree(second=other)


def second_clone(desk: Desk) -> None:
    """What a second operator types while a rollout soaks."""
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
    """Members are drained first, and the last one is not touched."""
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
    """A good change fails on a wrong golden, which is corrected; then back, and back again."""
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
