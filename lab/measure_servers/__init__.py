"""What servers of both engines hold on this machine's GPUs. Python's standard library alone."""
