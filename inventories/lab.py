"""Disposable hosts on this machine: `corral lab up`, then `pyinfra inventories/lab.py deploy.py`.

Holds the hosts that are up; with no lab up, the three of the rehearsal, for planning and locking.
"""

from lab import engine_source
from lab.hosts import connection_data, hosts_up, platform
from lab.layout import GATEWAY, this_lab

_lab = this_lab()

_GPU = {"name": "NVIDIA A100-PCIE-40GB", "count": 1, "compute_capability": "8.0"}


_numbers = [int(name.removeprefix("lab-")) for name in hosts_up(_lab)] or [1, 2, 3]
# The gateway's port for the alias of the tiny model.
_ALIASES = {"tiny-glm-moe": {"port": 8000}}
# The lab's own bridge: keys and prompts pass there without TLS.
_TRUSTED = {"trusted_networks": [str(_lab.subnet)]}


def _where(n: int) -> dict[str, str]:
    """Open to the lab's network only where a gateway asks from there."""
    return {"address": str(_lab.address(n))} if GATEWAY in _numbers else {}


def _role(n: int) -> dict[str, object]:
    if n == GATEWAY:
        return {"gateway": {"address": str(_lab.address(n)), "aliases": _ALIASES, **_TRUSTED}}
    if n == 2:
        # The quant that comes as two shards, on both engines.
        sharded = {"name": "tiny-f16", "profile": "tiny-chat", "quant": "F16", "port": 8001}
        on_ik = {"name": "tiny-ik", "profile": "tiny-single", "engine": "lab-ik_llama.cpp"}
        return {"instances": [{**sharded, **_where(n)}, {**on_ik, "port": 8002}]}
    if n == 3:
        # A stand-in nvidia-smi, but no CUDA toolkit: the engine is built for the CPU.
        on_gpu = {"name": "tiny-gpu", "profile": "tiny-chat", "port": 8001}
        socket_only = {"name": "tiny-socket", "profile": "tiny-socket"}
        return {"instances": [{**on_gpu, **_where(n)}, socket_only], "gpus": _GPU, "backend": "cpu"}
    # Two servers over one model file, with two profiles; one open to the lab's network.
    chat = {"name": "tiny-chat", "profile": "tiny-chat", "port": 8001}
    long = {"name": "tiny-long", "profile": "tiny-long", "port": 8002}
    return {"instances": [{**chat, "address": str(_lab.address(n))}, long]}


def _host(n: int) -> tuple[str, dict[str, object]]:
    shared = {
        "platform": platform(_lab, n),
        "hub_url": _lab.hub_url,
        "engine_sources": engine_source.urls(_lab),
        "keys_folder": str(_lab.keys),
        "archives_folder": str(_lab.archives),
        "disposable": True,
    }
    return _lab.host_name(n), {**connection_data(_lab, n), **shared, **_role(n)}


servers = [_host(n) for n in _numbers if n != GATEWAY]
if GATEWAY in _numbers:
    gateway = [_host(GATEWAY)]
