"""Keys of hosts beside the keys of the store: compared, taken over."""
