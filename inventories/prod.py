"""A small production fleet, to be adapted. Plain values only; pyinfra reads this file.

`corral lock inventories/prod.py` resolves what these hosts use before the first deploy.
"""

_A100_40GB = {"name": "NVIDIA A100-PCIE-40GB", "count": 1, "compute_capability": "8.0"}
_H200_X4 = {"name": "NVIDIA H200", "count": 4, "compute_capability": "9.0"}

# The same file twice: a second server for concurrency, or for an A/B test.
_FLASH_PAIR = [
    {"name": "flash-a", "profile": "glm-4.7-flash", "port": 4402},
    {"name": "flash-b", "profile": "glm-4.7-flash", "port": 4403},
]

# How to reach them: the operator's ssh agent; host keys committed and checked strictly. To begin:
# ssh-keyscan gpu-01.example.com >> inventories/prod.known_hosts, then compare the fingerprints.
_SSH = {
    "ssh_user": "root",
    "ssh_known_hosts_file": "inventories/prod.known_hosts",
    "ssh_strict_host_key_checking": "yes",
}

_DESK_01 = {
    "ssh_hostname": "desk-01.example.com",
    "gpus": _A100_40GB,
    "instances": [{"name": "air", "profile": "glm-4.5-air-realtime", "port": 8001}],
}
_GPU_01 = {
    "ssh_hostname": "gpu-01.example.com",
    "gpus": _H200_X4,
    "instances": [*_FLASH_PAIR, {"name": "air", "profile": "glm-4.5-air-realtime", "port": 4401}],
}
_GPU_02 = {
    "ssh_hostname": "gpu-02.example.com",
    "gpus": _H200_X4,
    "instances": _FLASH_PAIR,
}

workstations = ([("desk-01", _DESK_01)], _SSH)
datacenter = ([("gpu-01", _GPU_01), ("gpu-02", _GPU_02)], _SSH)
