"""Step times: which runs to make, how to attribute their records, and the fits.

It imports theory for the curves, and neither vLLM nor Snakemake. Start with `design`, then `fit`.
"""
