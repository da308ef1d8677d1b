"""Hallucination against the share of steps at which a gate lets a decoder act."""
