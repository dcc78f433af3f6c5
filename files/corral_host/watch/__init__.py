"""Watch the servers of this host between deploys; restart or stop one that does not serve."""
