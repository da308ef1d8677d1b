"""Benchmarks by name: where their examples come from, what is asked, and how the answers are scored."""
