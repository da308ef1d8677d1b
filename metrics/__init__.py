"""Scores of predictions against ground truth: counts first, values second, always with an interval. No torch."""
