"""Rules that the controller and the host helper both apply; standard library only, Python 3.9.

This package is part of the helper's archive (corral/remote/helper_archive.py), so both sides run
the same code.
"""
