"""A change of a whole fleet: planned, shown, waved, soaked, reported, reverted."""
