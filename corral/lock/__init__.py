"""corral.lock: exact commits, revisions, sizes and digests, and how they are resolved."""
