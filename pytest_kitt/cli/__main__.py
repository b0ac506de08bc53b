"""``python -m pytest_kitt.cli`` is ``kitt``."""

from pytest_kitt.cli.app import main

main()
