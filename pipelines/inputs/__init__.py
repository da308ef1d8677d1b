"""Rows of tokens and pixels from images and text."""
