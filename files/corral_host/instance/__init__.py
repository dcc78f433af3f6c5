"""What this host keeps of an instance: units, generations, plans, reports."""
