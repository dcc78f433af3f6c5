"""What the controller keeps outside the repository: api keys and engine archives."""
