"""What stands before the work: keys, limits, admission, and the server's own state."""
