"""Weights on this host: fetched from the hub, proved, kept."""
