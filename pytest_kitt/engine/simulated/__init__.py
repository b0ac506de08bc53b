"""The simulated engine: an OpenAI-compatible server whose true TTFT and ITL are known, for they are its options.

`python -m pytest_kitt.engine.simulated` runs it. No model computes anything: every token has a due time, fixed when its
request arrives.
"""

OWNER = "pytest-kitt"
"""Who owns its models, as its list of them says: by that a session knows that a server's numbers are made up."""
