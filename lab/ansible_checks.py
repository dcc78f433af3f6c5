"""A playbook of the checks that a deploy makes where nothing changes, from the hosts' plans.

One task for each subject and the usual module for it, with loops, as an operator would write it.
Where a module would do more than Corral does, the cheaper one is used, so that the comparison does
not favour Corral: installed packages are listed by dpkg-query, weights are not read, and of keys
the digest is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

Plan = Mapping[str, Any]
Task = dict[str, Any]

_ASKED = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}


def playbook(
    plans: Sequence[Plan], *, keys: Path, sha256: Mapping[str, Mapping[str, str]]
) -> list[dict[str, Any]]:
    """One play for all hosts.

    + keys: the controller's store of keys
    + sha256: host -> path -> digest of the helper and of the key files that it must have
    """
    variables = {plan["host"]: _variables(plan, keys, sha256[plan["host"]]) for plan in plans}
    return [
        {
            "hosts": "all",
            "gather_facts": True,
            "strategy": "free",
            "vars": {"of_hosts": variables, "mine": "{{ of_hosts[inventory_hostname] }}"},
            "tasks": [*_files(), *_services(), *_servers()],
        }
    ]


def _variables(plan: Plan, keys: Path, sha256: Mapping[str, str]) -> dict[str, Any]:
    """What is checked on one host."""
    instances = plan["instances"]
    return {
        "packages": list(plan["packages"]),
        "digests": [{"path": path, "sha256": digest} for path, digest in sha256.items()],
        "folders": sorted({str(PurePosixPath(i["folder"])) for i in instances}),
        "releases": [f"{r['folder']}/manifest.json" for r in plan["releases"]],
        "programs": sorted({i["argv"][0] for i in instances}),
        "shards": [{"path": s["path"], "bytes": s["size_bytes"]} for s in plan["shards"]],
        "units": [
            {"name": i["unit"], "path": i["unit_path"], "text": i["unit_text"]} for i in instances
        ],
        "keys": [str(keys / plan["host"] / i["name"]) for i in instances],
        "servers": [_server(i) for i in instances],
        "closed": [
            {**_server(i), "method": route.split()[0], "route": route.split()[1]}
            for i in instances
            for route in i["keyed_routes"]
        ],
    }


def _server(instance: Plan) -> dict[str, Any]:
    """Where a server answers; of a unix socket the host has no meaning."""
    end = instance["endpoint"]
    address = {"0.0.0.0": "127.0.0.1"}.get(end["address"], end["address"])  # noqa: S104
    return {
        "url": f"http://{address}:{end['port']}" if end["port"] else "http://localhost",
        "socket": end["socket"],
        "alias": instance["alias"],
    }


def _files() -> list[Task]:
    return [
        {
            "name": "Base packages",
            "ansible.builtin.command": {"argv": ["dpkg-query", "--show", "{{ item }}"]},
            "loop": "{{ mine.packages }}",
            "changed_when": False,
        },
        {
            "name": "Host helper and keys",
            "ansible.builtin.stat": {"path": "{{ item.path }}", "checksum_algorithm": "sha256"},
            "loop": "{{ mine.digests }}",
            "register": "file",
            "failed_when": "file.stat.checksum | default('') != item.sha256",
        },
        {
            "name": "Folders of instances",
            "ansible.builtin.file": {"path": "{{ item }}", "state": "directory"},
            "loop": "{{ mine.folders }}",
        },
        _present("Engine releases", "{{ mine.releases }}"),
        _present("Programs", "{{ mine.programs }}"),
        {
            "name": "Weights",
            "ansible.builtin.stat": {"path": "{{ item.path }}", "get_checksum": False},
            "loop": "{{ mine.shards }}",
            "register": "shard",
            "failed_when": "shard.stat.size | default(0) != item.bytes",
        },
        {
            "name": "Units",
            "ansible.builtin.copy": {"content": "{{ item.text }}", "dest": "{{ item.path }}"},
            "loop": "{{ mine.units }}",
            "loop_control": {"label": "{{ item.name }}"},
        },
    ]  # fmt: skip


def _present(name: str, paths: str) -> Task:
    return {
        "name": name,
        "ansible.builtin.stat": {"path": "{{ item }}", "get_checksum": False},
        "loop": paths,
        "register": "found",
        "failed_when": "not found.stat.exists",
    }


def _services() -> list[Task]:
    return [
        {
            "name": "Servers run and start at boot",
            "ansible.builtin.systemd_service": {
                "name": "{{ item.name }}", "enabled": True, "state": "started",
            },
            "loop": "{{ mine.units }}",
            "loop_control": {"label": "{{ item.name }}"},
        },
        {
            "name": "Listening sockets",
            "ansible.builtin.command": {"argv": ["cat", "/proc/net/tcp", "/proc/net/unix"]},
            "changed_when": False,
        },
    ]  # fmt: skip


def _servers() -> list[Task]:
    return [
        _asked("Health", "/health", keyed=False),
        _asked("Model", "/v1/models"),
        _asked("Slots", "/props"),
        _asked("Completion", "/v1/chat/completions", body=_ASKED),
        _asked("Stream", "/v1/chat/completions", body={**_ASKED, "stream": True}),
        {
            "name": "Routes refuse requests without a key",
            "ansible.builtin.uri": {
                "url": "{{ item.url }}{{ item.route }}",
                "unix_socket": "{{ item.socket or omit }}",
                "method": "{{ item.method }}",
                "status_code": 401,
            },
            "loop": "{{ mine.closed }}",
            "loop_control": {"label": "{{ item.route }}"},
        },
    ]


def _asked(name: str, path: str, *, keyed: bool = True, body: dict[str, Any] | None = None) -> Task:
    """Ask each server; with its key, which is read from the store on the controller."""
    key = (
        "{{ lookup('ansible.builtin.file', mine['keys'][number]).splitlines() "
        "| reject('match', '#') | first }}"
    )
    asked: dict[str, Any] = {
        "url": "{{ item.url }}" + path,
        "unix_socket": "{{ item.socket or omit }}",
        "return_content": True,
    }
    if keyed:
        asked["headers"] = {"Authorization": f"Bearer {key}"}
    if body:
        asked |= {"method": "POST", "body_format": "json", "body": body}
    return {
        "name": name,
        "ansible.builtin.uri": asked,
        "loop": "{{ mine.servers }}",
        "loop_control": {"label": "{{ item.alias }}", "index_var": "number"},
        "no_log": keyed,
    }
