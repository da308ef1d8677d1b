"""A loaded model: where things are in it, how it is loaded, and what identifies it."""
