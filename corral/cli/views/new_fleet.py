"""The files of a fleet's own folder."""

from __future__ import annotations

_RUN = '''"""Corral's own {what}, for this fleet. {use}"""

from corral.product import run

run("{name}")
'''

_INVENTORY = '''"""The hosts of this fleet. Plain values only; pyinfra reads this file.

`corral lock inventories/prod.py` pins what they use; commit corral.lock.
"""

# A host with one server:
#
# servers = [
#     (
#         "gpu-01",
#         {
#             "ssh_hostname": "192.0.2.11",
#             "ssh_user": "root",
#             "gpus": {"name": "NVIDIA A100-PCIE-40GB", "count": 1},
#             "memory_gib": 128,
#             "instances": [{"name": "air", "profile": "glm-4.5-air-realtime", "port": 8001}],
#         },
#     ),
# ]
servers = []
'''

_CATALOG = """# Entries of this fleet

`engines/`, `models/`, `profiles/` and more, one TOML file each; those of Corral lie under them.
A file with the name of one of theirs counts instead of it; a profile may extend that one:

    extends = "glm-4.5-air-realtime"
    context_tokens_per_slot = 65536
"""

_README = """# A fleet of LLM servers, by Corral {version}

Hosts: `inventories/prod.py`. Own entries: `catalog/`. Pinned versions: `corral.lock`, committed.

- `corral lock inventories/prod.py`: pin what the hosts use
- `corral plan HOST`: what a host will get; no host is contacted
- `pyinfra inventories/prod.py deploy.py`: deploy the hosts; run again, it changes nothing
- `corral status HOST`: what runs there

To update Corral, install another version of it, then lock, plan and deploy again.
"""

_IGNORED = ".venv/\n__pycache__/\n*.pyc\npyinfra-debug.log\n"


def files_of_fleet(version: str) -> dict[str, str]:
    """Path -> text; deploy.py, which makes the folder a project, comes last."""
    deploy = {"what": "deploy", "use": "Run: pyinfra inventories/prod.py deploy.py"}
    config = {"what": "checks of a command line", "use": "pyinfra runs them before any host."}
    return {
        ".gitignore": _IGNORED,
        "README.md": _README.format(version=version),
        "catalog/README.md": _CATALOG,
        "config.py": _RUN.format(name="config.py", **config),
        "corral.lock": '{\n  "engines": {},\n  "models": {},\n  "version": 1\n}\n',
        "inventories/prod.py": _INVENTORY,
        "deploy.py": _RUN.format(name="deploy.py", **deploy),
    }
