"""Types of the answers of hosts."""
