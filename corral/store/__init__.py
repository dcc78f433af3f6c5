"""Stores of the controller outside the repository: API keys and engine archives."""
