"""Inventories: which hosts there are, how they are reached, what each shall serve."""
