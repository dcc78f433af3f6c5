"""Measure the programs of a release on this host."""
