"""An engine that Corral does not ship: one folder for each side, one catalog file, one line each.

``echo/`` is its folder of corral/engines/, ``helper.py`` its module of files/corral_host/engines/,
``server.py`` the server itself, which comes as a wheel.
"""
