"""Mainline llama.cpp."""

from corral.engines.llama_cpp.engine import ENGINE

__all__ = ["ENGINE"]
