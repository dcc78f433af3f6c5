"""What can be served, and how: engines, models, profiles and drivers, one TOML file each."""
