"""The interface of an engine in the helper. Each kind of engine overrides what differs.

All engines serve the OpenAI API (chat), and GET /health, /v1/models and /metrics.

Callables that methods get: ``run`` takes arguments for the engine's program and returns its output
and exit code. ``get`` takes a path and returns the body of the answer to a request with the
instance's key; it raises unless the status is 200. ``ask`` takes a route, a body and a limit in
seconds, and returns the text of an answer with status 200. ``timed`` takes the same for a stream,
and returns its events, each with the seconds since the request was sent.
"""

from pathlib import Path


class Engine:
    """One kind of engine.

    + kind: as plans name it; + program: the server's file, below the folder of a release
    + environment: variables of every program of a release that the helper starts
    + smoke_model: name of the model's file for a smoke run
    + variables: prefixes of the names of variables that a server or its libraries read
    + same_reply: fields of a chat request that, beside temperature 0, make replies repeatable
    + tools: names of its other programs, which may be in an image beside the server
    + config_files: files that its programs would read beside their command line
    + tool_call_fields, reasoning_fields: fields of a chat request that make the reply a tool call,
      or reasoning, whatever the model
    + health_is_ready: whether GET /health answers 200 only if the server can answer requests
    + loopback_ports: whether its processes listen on loopback ports among themselves
    + reads_gguf: whether its memory can be counted before its weights are here
    + fit_tool: the name of the program that counts memory, for people; "" if there is none
    + program_seconds: limit for a program that reports about itself (version, flags, devices)
    + ready_seconds: limit for the start of a smoke run
    + key_name: file name of ``key_document`` in a smoke run
    + smoke_gpu_mib: free memory that a GPU must have for a smoke run
    + cuda_on_cpu: whether a release for CUDA can make its smoke run on the CPU
    """

    kind = ""
    program = ""
    environment = {}
    variables = ()
    same_reply = {}
    tool_call_fields = {}
    reasoning_fields = {}
    health_is_ready = True
    loopback_ports = False
    smoke_model = "model"
    config_files = ()
    tools = ()
    reads_gguf = False
    fit_tool = ""
    program_seconds = 60
    ready_seconds = 120
    key_name = "key"
    smoke_gpu_mib = 1024
    cuda_on_cpu = True

    def server(self, folder):
        """The server of a release in ``folder``."""
        return Path(folder) / self.program

    def prove_version(self, program, release, run):
        """Raises HostError unless the program is what was planned."""
        raise NotImplementedError

    def flags(self, program, run):
        """Every flag that the server accepts, sorted."""
        raise NotImplementedError

    def devices(self, program, run, log):
        """GPUs that the server finds. ``log``: of the smoke run."""
        raise NotImplementedError

    def key_document(self, keys):
        """Text of the file through which the server gets its keys. Never without a key."""
        return "".join(f"{key}\n" for key in keys)

    def smoke_arguments(self, program, model, key_file, endpoint, gpu):
        """The command line of a smoke run; ``gpu``: whether it uses one."""
        raise NotImplementedError

    def slots(self, get):  # noqa: ARG002
        """Number of slots, and context tokens of each; None for what the server does not report."""
        return None, None

    def drafts(self, get):  # noqa: ARG002
        """Tokens drafted since the start, and how many were accepted; None if not reported."""
        return

    def why_it_ended(self, log):  # noqa: ARG002
        """What is wrong and the next step, from the log of a server that ended; None if unknown."""
        return

    def in_flight(self, instance, get):  # noqa: ARG002
        """Number of requests that run or are queued; None if the server does not report it."""
        return

    def work(self, text):  # noqa: ARG002
        """A figure that grows with each token that the server computes; None if not reported.

        ``text``: of GET /metrics
        """
        return

    def kv_used(self, get):  # noqa: ARG002
        """Share of its context that the fullest working slot holds; None if not reported here."""
        return

    def trial_gpu_mib(self, instance, total_mib):
        """Memory that a server with dummy weights takes of a GPU with ``total_mib``."""
        raise NotImplementedError

    def trial_host_mib(self, instance, weights_mib):
        """Main memory that a server with dummy weights takes."""
        raise NotImplementedError

    def memory_report(self, log):
        """Figures of a server's memory in its log, by name; see `corral.host.trial.Figures`."""
        raise NotImplementedError

    def tokens(self, instance, ask, text):  # noqa: ARG002
        """Tokens of a text, as the server counts them; empty if it has no such route.

        ``ask``: takes a path and a body, and returns the body of an answer with status 200.
        """
        return []

    def speeds(self, ask, timed, words, tokens, generated, limit):
        """Tokens/s of a prompt of ``tokens`` tokens and of ``generated`` tokens, by name.

        ``words``: random words for the prompt. ``limit``: returns seconds for a number of tokens.
        Raises HostError if they cannot be measured.
        """
        raise NotImplementedError

    def perplexity(self, said):  # noqa: ARG002
        """Estimate and error in the program's output, or None."""
        return

    def read_text(self, said):  # noqa: ARG002
        """Whether the perplexity program read its text; if so, a lost estimate is worth a retry."""
        return False

    def counted_memory(self, instance, model):
        """MiB by device and part, as the engine counts. ``model``: a file with its header."""
        raise NotImplementedError
