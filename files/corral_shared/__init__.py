"""Rules that the controller and the host helper both apply; standard library only, Python 3.9.

Travels with the host helper (corral/remote/helper_archive.py): both sides decide by the same code.
"""
