"""This host as an operating system: commands, files, processes, locks, users."""
