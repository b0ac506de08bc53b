"""The child process that sends the timed requests."""
