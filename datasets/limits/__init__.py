"""Scenes of the embedded world that differ in one thing, and questions about them: the limits of perception."""
