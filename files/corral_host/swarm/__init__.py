"""Weights from and for other hosts of the inventory, over the LAN (ADR 0043)."""
