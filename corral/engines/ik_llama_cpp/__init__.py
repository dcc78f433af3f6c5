"""ik_llama.cpp, the fork of llama.cpp for CPUs and mixed placement."""

from corral.engines.ik_llama_cpp.engine import ENGINE

__all__ = ["ENGINE"]
