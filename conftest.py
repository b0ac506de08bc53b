"""What does pytest need to know in this checkout? That tools and benchmarks hold no tests.

It never ships, defines no options, and leaves ``pytest --kitt-suite=quick`` in a checkout as it is anywhere else; what
the project's own tests share is in tests/conftest.py.
"""

collect_ignore = ["benchmarks", "tools", "build"]
