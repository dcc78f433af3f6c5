"""Disposable hosts on this machine: `corral lab up`, then `pyinfra inventories/lab.py deploy.py`.

Holds the hosts that are up; with no lab up, the three of the rehearsal, for planning and locking.
"""

from lab import engine_source
from lab.hosts import connection_data, hosts_up
from lab.layout import this_lab

_lab = this_lab()

_GPU = {"name": "NVIDIA A100-PCIE-40GB", "count": 1, "compute_capability": "8.0"}


def _role(n: int) -> dict[str, object]:
    if n == 2:
        # The quant that comes as two shards, on both engines.
        sharded = {"name": "tiny-f16", "profile": "tiny-chat", "quant": "F16", "port": 8001}
        on_ik = {"name": "tiny-ik", "profile": "tiny-single", "engine": "lab-ik_llama.cpp"}
        return {"instances": [sharded, {**on_ik, "port": 8002}]}
    if n == 3:
        # A stand-in nvidia-smi, but no CUDA toolkit: the engine is built for the CPU.
        on_gpu = {"name": "tiny-gpu", "profile": "tiny-chat", "port": 8001}
        socket_only = {"name": "tiny-socket", "profile": "tiny-socket"}
        return {"instances": [on_gpu, socket_only], "gpus": _GPU, "backend": "cpu"}
    # Two servers over one model file, with two profiles; one open to the lab's network.
    chat = {"name": "tiny-chat", "profile": "tiny-chat", "port": 8001}
    long = {"name": "tiny-long", "profile": "tiny-long", "port": 8002}
    return {"instances": [{**chat, "address": str(_lab.address(n))}, long]}


def _host(n: int) -> tuple[str, dict[str, object]]:
    shared = {
        "hub_url": _lab.hub_url,
        "engine_sources": engine_source.urls(_lab),
        "keys_folder": str(_lab.keys),
        "archives_folder": str(_lab.archives),
    }
    return _lab.host_name(n), {**connection_data(_lab, n), **shared, **_role(n)}


_numbers = [int(name.removeprefix("lab-")) for name in hosts_up(_lab)] or [1, 2, 3]
servers = [_host(n) for n in _numbers]
