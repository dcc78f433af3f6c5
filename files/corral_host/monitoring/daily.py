"""What this host checks about itself once a day."""

from corral_host.monitoring.hashed import roll


def daily(document):
    """Read weights again within the budget. ``document``: that of the monitoring."""
    return {"read": roll(document["paths"], document.get("rehash_bytes_per_day"))}
