"""The fleet of the hard day: three servers of one alias, and a gateway in front of them.

`lab.chaos.fleet` writes the keys that scenarios change into a file, which this inventory reads.
"""

import json

from lab import engine_source
from lab.chaos.wanted import GATEWAY_PORT, Wanted, wanted_file
from lab.hosts import connection_data, hosts_up
from lab.layout import GATEWAY, this_lab

_lab = this_lab()
_file = wanted_file(_lab)
_wanted = Wanted(**json.loads(_file.read_text())) if _file.exists() else Wanted()
_sources = engine_source.urls(_lab)
_SHARED = {
    "hub_url": _lab.hub_url,
    # A second engine, with other programs of the same sources: a release to which scenarios change.
    "engine_sources": {**_sources, "llama.cpp-other": _sources["llama.cpp"]},
    "keys_folder": str(_lab.keys),
    "archives_folder": str(_lab.archives),
    "soak_seconds": 2,
}
_GPU = {"name": "NVIDIA A100-PCIE-40GB", "count": 1, "compute_capability": "8.0"}
_ALIASES = {"tiny-glm-moe": {"port": GATEWAY_PORT}}


def _server(n: int) -> tuple[str, dict[str, object]]:
    always = {"name": "tiny", "port": 8001, "address": str(_lab.address(n))}
    instance = {**always, **_wanted.instance, **_wanted.own.get(_lab.host_name(n), {})}
    gpus = {"gpus": _GPU, "backend": "cpu"} if n == 3 else {}
    own = {"instances": [instance], "canary": n == 1, **gpus, **_of_host(n)}
    return _lab.host_name(n), {**connection_data(_lab, n), **_SHARED, **own}


def _gateway(n: int) -> tuple[str, dict[str, object]]:
    always = {"address": str(_lab.address(n)), "trusted_networks": [str(_lab.subnet)]}
    gateway = {**always, "aliases": _ALIASES, **_wanted.gateway}
    own = {"gateway": gateway, **_of_host(n)}
    return _lab.host_name(n), {**connection_data(_lab, n), **_SHARED, **own}


def _of_host(n: int) -> dict[str, object]:
    return _wanted.hosts.get(_lab.host_name(n), {})


_numbers = [int(name.removeprefix("lab-")) for name in hosts_up(_lab)] or [1, 2, 3]
servers = [_server(n) for n in _numbers if n != GATEWAY]
if GATEWAY in _numbers:
    gateway = [_gateway(GATEWAY)]
