"""Fuzzers: programs that look for input that breaks a reader."""
