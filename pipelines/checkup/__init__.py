"""Checks of a model by measurement: layout, engine, neutral strengths."""
