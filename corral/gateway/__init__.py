"""A gateway: one address per model alias, in front of the instances that serve it (HAProxy)."""
