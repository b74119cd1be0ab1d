"""The engine: schedule, run, commit, publish."""
