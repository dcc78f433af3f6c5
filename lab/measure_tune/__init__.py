"""A grid of settings, the search of `corral tune`, and pairs, on a machine with one large GPU."""
