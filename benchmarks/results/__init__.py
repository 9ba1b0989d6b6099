"""The page of results, made from a table of them; see `benchmarks.results.__main__`."""
