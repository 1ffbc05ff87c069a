"""Figures, one a module: `draw(...)` takes data and returns a matplotlib figure, touching no file.

A module is named as the ending of its files, `{dataset}_{module}.pdf` and `.png`.
"""
