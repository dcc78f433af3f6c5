"""Weights on this host: fetched from the hub and proved by their digests."""
