"""Benchmarks that belong to a host: planned, run, kept, compared, drawn."""
