"""What a Prometheus needs to watch a fleet: scrape jobs, targets, keys and rules."""
