"""Memory that a model needs on a host, from the headers of its shards."""
