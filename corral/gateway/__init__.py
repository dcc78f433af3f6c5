"""Gateways: HAProxy with one address per alias, in front of the instances that serve it."""
