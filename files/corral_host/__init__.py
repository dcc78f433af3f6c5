"""Corral's helper on a host. Standard library only, Python 3.9, systemd 247 or later.

It travels as one zip archive that Python runs: from standard input for facts, so that a bare host
can be read before anything is changed on it, and installed for everything else.
"""
