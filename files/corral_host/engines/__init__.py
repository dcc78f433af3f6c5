"""Engines: one module or folder for each kind. Other code calls ``of`` and knows no kind."""

from corral_host.engines.llama import IkLlamaCpp, LlamaCpp
from corral_host.engines.vllm import Vllm
from corral_host.system.commands import HostError

ENGINES = {}
# For plans from before plans named a kind; the two kinds of that time are handled alike.
UNNAMED = "llama.cpp"


def register(engine):
    """Make an engine known under its kind."""
    ENGINES[engine.kind] = engine


register(LlamaCpp())
register(IkLlamaCpp())
register(Vllm())


def config_files():
    """Configuration files of engines that would change servers beside their command line."""
    return [path for engine in ENGINES.values() for path in engine.config_files]


def of(document):
    """The engine of an instance's plan or of a release, by its ``kind``. Raises HostError."""
    kind = document.get("kind") or UNNAMED
    if kind in ENGINES:
        return ENGINES[kind]
    raise HostError(
        f"the helper knows no engine of kind {kind}",
        "deploy from the checkout that has it, which brings its helper",
    )
