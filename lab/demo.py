"""The end of `make demo`: print how to call the first instance of the lab, and an answer of it."""

from __future__ import annotations

import json
import subprocess

from corral.inventory.hosts import load_inventory
from corral.planning.load import load_planner
from corral.project import project_root
from corral.store.api_keys import key_path

# The key goes from its file through a pipe into curl's headers, so it is in no argument list.
_COMMAND = """\
sed -n '/^[^#]/{{s/^/Authorization: Bearer /p;q}}' {key_file} |
  curl --silent --fail-with-body --header @- --header 'Content-Type: application/json' \\
    --data '{{"model": "{model}", "messages": [{{"role": "user", "content": "Say hello."}}], \
"max_tokens": 24}}' \\
    {url}/v1/chat/completions"""


def main() -> None:
    """Print endpoint and command, run the command, print the answer."""
    root = project_root()
    host = load_inventory(root / "inventories" / "lab.py")[0]
    instance = load_planner(root).plan_host(host).instances[0]
    command = _COMMAND.format(
        key_file=key_path(host, instance.name), model=instance.alias, url=instance.endpoint.url
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)["choices"][0]["message"]["content"]
    print(f"\nEndpoint: {instance.endpoint.url}/v1 serves {instance.alias} on {host.name}")
    print(f"Call it (any OpenAI client does; the key is in that file):\n\n{command}\n")
    print(f"It just answered (the tiny model's weights are random): {answer!r}\n")
    print("Look around: .venv/bin/corral status lab-1; .venv/bin/corral logs lab-1/tiny-chat")
    print("Put it away: .venv/bin/corral lab down")


if __name__ == "__main__":
    main()
