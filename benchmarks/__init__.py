"""Our own accuracy and cost, against the limit; one command each."""
