"""The kitt command."""
