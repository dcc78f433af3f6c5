"""What hosts answer, as types."""
