"""From a source to requests: one module a dataset, and what they share.

It imports estimation, and neither vLLM nor Snakemake. Start with `prompts`, which makes the
requests; `options` says what each dataset takes, `loading` finds the module of a dataset.
"""
