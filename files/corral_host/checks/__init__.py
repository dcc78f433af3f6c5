"""Checks of running servers: the gate before a generation is kept, verification at any time."""
