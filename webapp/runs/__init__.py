"""Runs as people have them: start, pause, cancel, rebuild, schedule; over which subjects; and what one would send."""
