"""Inventories: hosts, their connections, and the instances that each serves."""
