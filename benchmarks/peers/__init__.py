"""Other load clients, run beside ours against the same server."""
