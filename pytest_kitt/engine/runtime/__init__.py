"""The ways to run an engine, one file each."""
