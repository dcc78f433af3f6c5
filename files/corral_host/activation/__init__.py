"""Switch an instance to a generation, and back."""
