"""Bundles: all that the hosts of an inventory need, for a fleet without a network."""
