"""How keys reach vLLM: a YAML file that each start makes from the unit's credential.

A flag would show in the list of processes, and VLLM_API_KEY in the environment. The key file stays
the one source: adopted, staged, rotated and reverted keys are those of the next start.
"""

from __future__ import annotations

from collections.abc import Mapping

from packaging.version import Version

from corral.engines.base import KeyConfig

NAME = "vllm.yaml"
# vLLM 0.24 wrote its keys into its log on a GPU host; by their sources 0.25 and 0.27 do, too, and
# 0.29 shows them as "***" (vllm/entrypoints/utils.py, log_non_default_args).
_LOGS_NO_KEYS = "0.29"

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


def release_problem(pins: Mapping[str, str]) -> str | None:
    """Why a version must not serve; ``pins``: distribution -> version."""
    version = pins.get("vllm")
    if version is None:
        return "its requirements have no vllm"
    if Version(version) < Version(_LOGS_NO_KEYS):
        return f"vLLM {version} writes API keys into its log; {_LOGS_NO_KEYS} is the oldest"
    return None
