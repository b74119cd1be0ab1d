"""Proxies in front of unequal engines, side by side: `python -m benchmarks.door`."""
