"""ik_llama.cpp, the fork for processors and mixed placement."""

from corral.engines.ik_llama_cpp.engine import ENGINE

__all__ = ["ENGINE"]
