"""Observe the state of this host. Changes nothing."""
