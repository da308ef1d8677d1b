"""Matchers: how well an image and a text fit, and which parts of the image matter."""
