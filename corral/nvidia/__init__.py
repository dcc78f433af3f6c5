"""The NVIDIA driver and CUDA toolkit: versions, where they come from, what a host needs."""
