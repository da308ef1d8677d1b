"""Directions and heads that a decoder finds once: pairs of captions, and the fit."""
