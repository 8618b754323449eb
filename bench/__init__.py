"""Benchmarks, run by hand: `python -m bench.NAME`. They print ratios of one run, no verdict."""
