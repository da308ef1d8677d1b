"""Captions and answers that published methods released, scored by one scorer and set beside what was claimed."""
