"""Risks beside those read along: detectors that ask the model again, and risks as probabilities."""
