"""HAProxy on this host: generations, drains, changes, checks."""
