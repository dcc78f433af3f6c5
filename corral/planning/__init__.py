"""From inventory, catalog and lock to plans. Pure: no host is contacted."""
