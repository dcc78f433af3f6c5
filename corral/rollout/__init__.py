"""A change of a whole fleet: planned, shown, waved, soaked, reported, taken back."""
