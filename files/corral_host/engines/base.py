"""What an engine is to the helper. A kind of engine overrides what differs.

What is common to all, they have by the OpenAI API: GET /health, /v1/models, /metrics, and chat.

``run`` takes words for the engine's program and gives all that it says and its exit code. ``get``
takes a path and gives the body of the answer to a request with the instance's key; it raises when
the answer is no 200. ``ask`` takes a route, a body and seconds, and gives the text of a 200.
"""

from pathlib import Path


class Engine:
    """One kind.

    + kind: as plans name it; + program: the server's file, below the folder of a release
    + environment: variables of every program of a release that the helper starts
    + smoke_model: name of the model's file for a smoke run
    + variables: how the names of those begin that a server or its libraries read
    + same_reply: fields of a chat request that make each reply the same, beside temperature 0
    + config_files: which its programs would read beside their command line
    + reads_gguf: whether its memory can be counted before its weights are here
    + fit_tool: the program that counts memory, for people; "" where there is none
    """

    kind = ""
    program = ""
    environment = {}
    variables = ()
    same_reply = {}
    smoke_model = "model"
    config_files = ()
    reads_gguf = False
    fit_tool = ""

    def server(self, folder):
        """The server of a release in ``folder``."""
        return Path(folder) / self.program

    def prove_version(self, program, release, run):
        """Raises HostError unless the program is what was planned."""
        raise NotImplementedError

    def flags(self, program, run):
        """Every flag that the server takes, sorted."""
        raise NotImplementedError

    def devices(self, program, run, log):
        """GPUs that the server finds. ``log``: of the smoke run."""
        raise NotImplementedError

    def smoke_words(self, program, model, key_file, endpoint, gpu):
        """The command line of a smoke run; ``gpu``: whether there is one."""
        raise NotImplementedError

    def slots(self, get):  # noqa: ARG002
        """Slots and context tokens of each; None where the server does not tell."""
        return

    def in_flight(self, instance, get):  # noqa: ARG002
        """Requests that the server works on or keeps waiting; None where it does not tell."""
        return

    def speeds(self, ask, words, tokens, generated, limit):
        """Tokens/s of a prompt of so many tokens and of so many generated ones, by name.

        Raises HostError where the server does not tell. ``limit``: gives seconds for tokens.
        """
        raise NotImplementedError

    def perplexity(self, said):  # noqa: ARG002
        """Estimate and error in what the program said, or None."""
        return

    def read_text(self, said):  # noqa: ARG002
        """Whether the perplexity program read its text: then a lost estimate is worth a retry."""
        return False

    def counted_memory(self, instance, model):
        """MiB by device and part, by the engine's own count. ``model``: a path with its header."""
        raise NotImplementedError
