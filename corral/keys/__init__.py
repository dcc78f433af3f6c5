"""Keys on hosts: compared with the store, and adopted into it."""
