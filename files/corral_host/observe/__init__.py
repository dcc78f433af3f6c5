"""What is on this host now. Changes nothing."""
