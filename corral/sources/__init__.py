"""Clients of the hub and of git servers; each answer is validated here."""
