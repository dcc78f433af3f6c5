"""The controller's own files in one file: what only it has, to restore on another machine."""
