"""pyinfra facts, one module per subject: what is on a host now."""
