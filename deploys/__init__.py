"""The stages of a deploy, one module each."""
