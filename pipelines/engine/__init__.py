"""The one engine: declarations, hooks, rows, decoding, readings."""
