"""From records to numbers: pure functions, no I/O."""
