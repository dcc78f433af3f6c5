"""A production fleet, to be adapted. Plain values only; pyinfra reads this file.

`corral lock inventories/prod.py` resolves what these hosts use before the first deploy.
"""

_A100_40GB = {"name": "NVIDIA A100-PCIE-40GB", "count": 1, "compute_capability": "8.0"}
_H200_X4 = {"name": "NVIDIA H200", "count": 4, "compute_capability": "9.0"}
_H200_X8 = {"name": "NVIDIA H200", "count": 8, "compute_capability": "9.0"}
_RTX_3090_TI = {"name": "NVIDIA GeForce RTX 3090 Ti", "count": 1, "compute_capability": "8.6"}
# With ECC off; the catalog counts on 46080 MiB, as with ECC on.
_RTX_8000_X2 = {
    "name": "Quadro RTX 8000",
    "count": 2,
    "compute_capability": "7.5",
    "memory_mib": 49152,
}

# An instance listens on loopback unless it says more; its key file guards it either way.
_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104

# Yours alone: between a gateway and its servers keys and prompts pass without TLS.
_OWN_NETWORK = "10.20.0.0/24"

# How to reach them: the operator's ssh agent; host keys committed and checked strictly. To begin:
# ssh-keyscan gpu-01.example.com >> inventories/prod.known_hosts, then compare the fingerprints.
_SSH = {
    "ssh_user": "root",
    "ssh_known_hosts_file": "inventories/prod.known_hosts",
    "ssh_strict_host_key_checking": "yes",
}

# One GPU for one of four profiles. To switch: glm-4.5-air-long-context, -throughput or -quality
# in place of -realtime, and deploy. A second instance on another port is planned, too: it shares
# the GPU with the first, and each then has fewer experts there.
_DESK_01 = {
    "ssh_hostname": "desk-01.example.com",
    "gpus": _A100_40GB,
    "memory_gib": 128,
    "instances": [{"name": "air", "profile": "glm-4.5-air-realtime", "port": 8001}],
}

# GLM-Z1 on the engine that is faster at short contexts; without "engine", on the profile's own.
_DESK_02 = {
    "ssh_hostname": "desk-02.example.com",
    "gpus": _RTX_3090_TI,
    "memory_gib": 64,
    "instances": [
        {"name": "z1", "profile": "glm-z1-32b", "port": 8001, "engine": "ik_llama.cpp"},
    ],
}

# The plan adds up what these four need together. They run in the site's own image (see
# catalog/engines/llamacpp-cuda-complete.toml), with the weights where the site keeps them.
_IN_IMAGE = {"engine": "llamacpp-cuda-complete", "address": _ALL_ADDRESSES}
_GPU_01 = {
    "ssh_hostname": "gpu-01.example.com",
    "member_address": "10.20.0.11",
    "gpus": _H200_X4,
    "memory_gib": 1024,
    "models_folder": "/data/models",
    "runtime": "apptainer",
    "container_program": "singularity",
    "instances": [
        {"name": "glm-4.7-q2", "profile": "glm-4.7-q2", "port": 4401, **_IN_IMAGE},
        # The same file twice: a second server for concurrency, or for an A/B test.
        {
            "name": "glm-4.7-flash-q4",
            "profile": "glm-4.7-flash",
            "port": 4402,
            **_IN_IMAGE,
        },
        {
            "name": "glm-4.7-flash-q4-b",
            "profile": "glm-4.7-flash",
            "port": 4403,
            **_IN_IMAGE,
        },
        {
            "name": "deepseek-v2.5",
            "profile": "deepseek-v2.5",
            "port": 5001,
            **_IN_IMAGE,
        },
    ],
}

# A GPU for each: by index, as nvidia-smi numbers them; a uuid ("GPU-...") does as well.
_GPU_02 = {
    "ssh_hostname": "gpu-02.example.com",
    "gpus": _H200_X4,
    "memory_gib": 1024,
    "instances": [
        {"name": "flash-a", "profile": "glm-4.7-flash", "port": 4402, "gpus": [0]},
        {"name": "flash-b", "profile": "glm-4.7-flash", "port": 4403, "gpus": [1]},
        {"name": "glm-4", "profile": "glm-4-32b", "port": 4404, "gpus": [2]},
        {"name": "air", "profile": "glm-4.5-air-quality", "port": 4405, "gpus": [3]},
    ],
}

# vLLM. It answers some routes without a key, so that only gateways may be in front of an address on
# the network: its unit lets in gw-01, and `corral verify` proves that nobody else gets an answer.
_GPU_03 = {
    "ssh_hostname": "gpu-03.example.com",
    "member_address": "10.20.0.12",
    "gpus": _H200_X4,
    "memory_gib": 1024,
    "instances": [
        {"name": "glm-4.7-fp8", "profile": "glm-4.7-fp8", "port": 4401, "address": _ALL_ADDRESSES},
    ],
}

# The same model divided in two ways, to be compared by `corral bench --load`. For all eight GPUs in
# one server: glm-4.5-air-fp8-tp8, without "gpus".
_GPU_04 = {
    "ssh_hostname": "gpu-04.example.com",
    "gpus": _H200_X8,
    "memory_gib": 2048,
    "instances": [
        {
            "name": "air-tp4",
            "profile": "glm-4.5-air-fp8-tp4",
            "port": 4401,
            "gpus": [0, 1, 2, 3],
        },
        {
            "name": "air-dp4",
            "profile": "glm-4.5-air-fp8-dp4",
            "port": 4402,
            "gpus": [4, 5, 6, 7],
        },
    ],
}

_RTX8000_01 = {
    "ssh_hostname": "rtx8000-01.example.com",
    "member_address": "10.20.0.13",
    "gpus": _RTX_8000_X2,
    "memory_gib": 256,
    "instances": [
        {
            "name": "glm-4.7-q4",
            "profile": "glm-4.7-q4-graph",
            "port": 15000,
            "address": _ALL_ADDRESSES,
        },
    ],
}

_CPU_01 = {
    "ssh_hostname": "cpu-01.example.com",
    "memory_gib": 64,
    "instances": [{"name": "z1", "profile": "glm-z1-32b-cpu", "port": 8001}],
}

# One address for the two Flash servers of gpu-01, a quarter as much for the second: an A/B test.
# `corral gateway weight gpu-01/glm-4.7-flash-q4-b 50%` changes that for a while.
_GW_01 = {
    "ssh_hostname": "gw-01.example.com",
    "member_address": "10.20.0.2",
    "gateway": {
        "address": _ALL_ADDRESSES,
        "aliases": {
            "glm-4.7-flash": {"port": 8001, "weights": {"gpu-01/glm-4.7-flash-q4-b": 25}},
            # Two quants on hosts of two sizes: 131072 tokens and 38912.
            "glm-4.7": {"port": 8002, "may_differ": ["context"]},
            "glm-4.7-fp8": {"port": 8003},
        },
        "trusted_networks": [_OWN_NETWORK],
        # "tls_certificate": "~/.config/corral/gw-01.pem",
    },
}

workstations = ([("desk-01", _DESK_01), ("desk-02", _DESK_02)], _SSH)
datacenter = (
    [
        ("gpu-01", _GPU_01),
        ("gpu-02", _GPU_02),
        ("gpu-03", _GPU_03),
        ("gpu-04", _GPU_04),
        ("rtx8000-01", _RTX8000_01),
        ("cpu-01", _CPU_01),
    ],
    _SSH,
)
gateway = ([("gw-01", _GW_01)], _SSH)
