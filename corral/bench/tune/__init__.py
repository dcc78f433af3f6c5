"""The best settings of an instance on its host: searched, kept, shown, written as overrides."""
