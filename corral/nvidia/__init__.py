"""The NVIDIA driver and CUDA toolkit: versions, sources, and the need of a host."""
