"""Tables and text that commands print."""
