"""Preflight: checks before any change. Pure: a plan is compared with the state of its host."""
