"""One module per kind of engine: its flags, its routes, its build."""
