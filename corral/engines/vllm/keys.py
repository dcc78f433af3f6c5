"""How keys reach vLLM: a YAML file that each start makes from the unit's credential.

A flag would show in the list of processes, and VLLM_API_KEY in the environment. The key file stays
the one source: adopted, staged, rotated and reverted keys are those of the next start.
"""

from __future__ import annotations

from corral.engines.base import KeyConfig

NAME = "vllm.yaml"

# JSON is YAML. An empty list would be no authentication, silently; a key with a dash in front would
# be a flag to vLLM's parser, which reads the file as more of the command line.
_CODE = """\
import json, os, sys
source, target = sys.argv[1:]
keys = [line for line in open(source).read().split("\\n") if line and line[0] != "#"]
if not keys:
    sys.exit(source + ": there is no key in it. Next: deploy this host")
if any(key[0] == "-" for key in keys):
    sys.exit(source + ": vLLM takes no key that begins with a dash. Next: replace that key, deploy")
os.umask(0o77)
with open(target, "w") as file:
    json.dump({"api-key": keys}, file)
"""


def key_config(program: str, key_file: str, folder: str) -> KeyConfig:
    """The file in ``folder``, and the command that makes it; no argument contains a key."""
    path = f"{folder}/{NAME}"
    return KeyConfig(path, (program, "-I", "-c", _CODE, key_file, path))
