"""Packet rules: redirect clients during a switch, and reserve served ports."""
