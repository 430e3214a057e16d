"""Servers that one would write instead, and their pinned packages; `tests.bench.bench_peers` starts them."""
