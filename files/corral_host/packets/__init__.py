"""Packet rules: clients are redirected in a switch, and served ports are reserved."""
