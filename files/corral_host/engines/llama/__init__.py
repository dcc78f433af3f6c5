"""llama.cpp and ik_llama.cpp: llama-server, and the programs beside it."""

import json
import os
import re

from corral_host.engines.base import Engine
from corral_host.engines.llama import fit_params, programs
from corral_host.system.commands import HostError

# In both engines (perplexity.cpp); ik_llama.cpp prints chunks and context before the equals sign.
ESTIMATE = re.compile(r"Final estimate: PPL[^=\n]*(?:=\d+ )?= (\S+) \+/- (\S+)")
# What the perplexity program prints for each chunk of the text.
CHUNK = re.compile(r"\[\d+\]\S+,")
# The server's name of a figure -> Corral's.
TIMINGS = {"prompt_per_second": "prompt", "predicted_per_second": "generation"}
IN_FLIGHT = ("llamacpp:requests_processing", "llamacpp:requests_deferred")
# ik_llama.cpp has no n_decode_total, which grows during a prompt.
WORK = ("n_decode_total", "prompt_tokens_total", "tokens_predicted_total")
SMOKE_THREADS = 4


def is_working(slot):
    """Mainline has is_processing, ik_llama.cpp state."""
    return bool(slot.get("is_processing", slot.get("state")))


class LlamaServer(Engine):
    """What both engines have in common."""

    program = "bin/llama-server"
    tools = (
        "llama-batched-bench", "llama-bench", "llama-fit-params", "llama-perplexity",
        "llama-sweep-bench",
    )  # fmt: skip
    environment = {"GGML_NO_BACKTRACE": "1"}
    variables = ("LLAMA_", "GGML_", "MTMD_", "HF_", "HUGGING")
    smoke_model = "model.gguf"
    same_reply = {"top_k": 1, "cache_prompt": False}
    reads_gguf = True
    fit_tool = "llama-fit-params"

    def prove_version(self, program, release, run):
        programs.prove_version(program, release["commit"], run)

    def smoke_arguments(self, program, model, key_file, endpoint, gpu):
        """The command line of a smoke run, with flags that both engines know."""
        return [
            str(program), "--model", str(model), "--alias", "smoke",
            "--api-key-file", str(key_file),
            "--host", endpoint["address"], "--port", str(endpoint["port"]), "--jinja",
            "--ctx-size", "512", "--parallel", "1", "--n-gpu-layers", "99" if gpu else "0",
            "--threads", str(min(SMOKE_THREADS, os.cpu_count() or 1)),
        ]  # fmt: skip

    def slots(self, get):
        properties = json.loads(get("/props"))
        return properties["total_slots"], properties["default_generation_settings"]["n_ctx"]

    def in_flight(self, instance, get):
        if instance["metrics"]:
            lines = get("/metrics").splitlines()
            values = dict(line.split() for line in lines if line and not line.startswith("#"))
            return int(sum(float(values[part]) for part in IN_FLIGHT))
        return sum(map(is_working, json.loads(get("/slots"))))

    def kv_used(self, get):
        # What an idle slot keeps is a cache that makes room. Mainline counts n_prompt_tokens, which
        # grows with the answer; ik_llama.cpp n_past.
        slots = [one for one in json.loads(get("/slots")) if is_working(one)]
        used = [one.get("n_past", one.get("n_prompt_tokens", 0)) / one["n_ctx"] for one in slots]
        return max(used, default=0)

    def work(self, text):
        lines = (line.split() for line in text.splitlines() if line.startswith("llamacpp:"))
        found = [float(line[1]) for line in lines if line[0].partition(":")[2] in WORK]
        return sum(found) if found else None

    def tokens(self, instance, ask, text):  # noqa: ARG002
        return json.loads(ask("/tokenize", {"content": text}))["tokens"]

    def speeds(self, ask, timed, words, tokens, generated, limit):  # noqa: ARG002
        prompt = self.prompt(ask, words, tokens)
        body = {
            "prompt": prompt, "n_predict": generated, "temperature": 0, "ignore_eos": True,
            "cache_prompt": False,
        }  # fmt: skip
        answer = ask("POST /completion", body, limit(generated, tokens))
        timings = json.loads(answer).get("timings")
        if not timings:
            raise HostError("the server reports no timings")
        if timings["prompt_n"] < tokens:
            raise HostError(
                f"{timings['prompt_n']} of {tokens} tokens were read, the rest was cached"
            )
        return {name: timings[field] for field, name in TIMINGS.items()}

    def prompt(self, ask, words, tokens):
        """The words as exactly ``tokens`` tokens of the model."""
        return json.loads(ask("POST /tokenize", {"content": " ".join(words)}))["tokens"][:tokens]

    def perplexity(self, said):
        found = ESTIMATE.search(said)
        return found and found.groups()

    def read_text(self, said):
        return bool(CHUNK.search(said))

    def counted_memory(self, instance, model):
        return fit_params.ask(instance, model)


class LlamaCpp(LlamaServer):
    """Mainline."""

    kind = "llama.cpp"
    config_files = ("/etc/llama.cpp/config.ini",)

    def flags(self, program, run):
        """Flags of --help, which is complete."""
        return sorted(programs.listed_flags(program, run)[0])

    def devices(self, program, run, log):  # noqa: ARG002
        return programs.listed_devices(run)


class IkLlamaCpp(LlamaServer):
    """The fork."""

    kind = "ik_llama.cpp"

    def flags(self, program, run):
        """Flags of --help, and those that it leaves out: --alias, and on the CPU all for GPUs.

        The program's file is searched for words that may be flags, and the program is asked for
        each of them.
        """
        listed, removed = programs.listed_flags(program, run)
        unlisted = programs.possible_flags(program) - listed - removed
        return sorted(listed | {one for one in unlisted if programs.takes(one, run)})

    def devices(self, program, run, log):  # noqa: ARG002
        return programs.logged_devices(log)
