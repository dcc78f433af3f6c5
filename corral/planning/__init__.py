"""From inventory, catalog and lock to plans. Pure: nobody is asked."""
