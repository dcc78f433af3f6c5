"""The text of GET /metrics, in the exposition format of Prometheus."""

import re

# ``name{labels} value``, perhaps with a time after it; labels may contain spaces.
SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{.*\})? (\S+)(?: -?\d+)?$", re.ASCII)


def total(text, name):
    """The sum of a metric over all its labels; None if the server does not have it.

    Each engine of a server with data parallelism has its own sample.
    """
    found = [one for one in map(SAMPLE.match, text.splitlines()) if one and one[1] == name]
    return sum(float(one[2]) for one in found) if found else None
