"""Rollouts: changes of a fleet in waves, with soaks, verification and revert."""
