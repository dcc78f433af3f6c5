"""Reach hosts: ssh(1), root, the host helper, and its jobs."""
