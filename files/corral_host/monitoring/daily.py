"""What this host checks about itself once a day."""

from corral_host.monitoring.drift import drift, keep
from corral_host.monitoring.hashed import roll


def daily(document):
    """Read weights again within the budget, then look for drift. ``document``: of the monitoring.

    Drift is kept even if weights cannot be read, as where their disk is missing.
    """
    paths = document["paths"]
    try:
        read = roll(paths, document.get("rehash_bytes_per_day"))
    finally:
        rows = drift(document)
        keep(paths, rows)
    return {"read": read, "drift": len(rows)}
