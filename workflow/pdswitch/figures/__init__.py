"""Figures: one module each, a pure function from data to a matplotlib figure."""
