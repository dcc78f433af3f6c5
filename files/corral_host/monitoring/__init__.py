"""What a Prometheus reads of this host: figures of GPUs and instances, as a textfile."""
