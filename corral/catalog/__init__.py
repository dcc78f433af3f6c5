"""The catalog: engines, models, profiles, GPUs and drivers, one TOML file each."""
