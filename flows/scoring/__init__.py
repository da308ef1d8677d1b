"""Captions and answers of any program, scored and compared without a model."""
