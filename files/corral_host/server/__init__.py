"""Talk to a running server as its clients do, with its key."""
