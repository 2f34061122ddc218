"""The kit for those who write plugins: a new package, a check against the contract, fixtures for their tests.
The command line calls it, and pytest loads `testing` from it; nothing of the desk depends on it.
"""
