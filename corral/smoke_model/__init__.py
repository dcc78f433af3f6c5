"""The tiny model for the smoke test of new engine releases."""
