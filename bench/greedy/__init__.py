"""Greedy generation in every runtime, to compare artefacts with their sources."""
