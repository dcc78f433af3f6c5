"""Access to hosts: ssh(1), root, the client of the host helper, and its jobs."""
