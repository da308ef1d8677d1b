"""Detectors trained and evaluated, and the risk of words in a text."""
