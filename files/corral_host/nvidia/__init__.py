"""GPUs, their driver and the CUDA toolkit on this host."""
