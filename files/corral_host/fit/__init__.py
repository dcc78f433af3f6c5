"""Proof that an instance fits into the memory of this host, before its weights are here."""
