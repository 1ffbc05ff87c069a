"""Figures, one a module: `draw(...)` takes data and returns a matplotlib figure, touching no file.

It imports analysis, profiling and the wording of the report. Start with any figure, then `style`.
A module is named as the ending of its files, `{dataset}_{module}.pdf` and `.png`.
"""
