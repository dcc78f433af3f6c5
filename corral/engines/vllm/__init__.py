"""The engine vLLM: safetensors, tensor and data parallel, a server in a Python environment."""

from corral.engines.vllm.engine import ENGINE

__all__ = ["ENGINE"]
