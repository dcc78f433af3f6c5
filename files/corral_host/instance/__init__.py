"""What this host stores of an instance: units, generations, plans, reports."""
