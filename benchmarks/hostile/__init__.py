"""Malformed and hostile inputs over all entry points; see `benchmarks.hostile.__main__`."""
