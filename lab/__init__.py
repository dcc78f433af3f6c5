"""Disposable real hosts on one machine, for rehearsal and tests."""
