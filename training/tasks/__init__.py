"""One file a task family: its question format, its sampler and the inverse of its format."""
