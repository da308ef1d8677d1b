"""The training of the shipped models."""
