"""Figures, one a module, found by `catalogue`: whatever here defines `draw` and `caption`.

`draw(...)` returns a matplotlib figure and touches no file. Its parameters say what it is drawn
from: `dataset` for the name, or names in `catalogue.RESULT_FILES`. `caption(results)` is what both
reports say under it. PLACE is its place in the report. SETTINGS are keys of the config, which
Snakemake's own report adds. A module is named as the ending of its files, `{dataset}_{module}.pdf`.
It imports analysis, profiling and the wording of the report. Start with any figure, then `style`.
"""
