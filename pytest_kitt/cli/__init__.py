"""The ``kitt`` command."""
