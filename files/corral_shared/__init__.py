"""Rules that the controller and the host helper both apply; standard library only, Python 3.9.

Travels with the host helper (corral/helper.py), so that both sides decide by the same code.
"""
