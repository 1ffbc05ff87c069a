"""From a source to requests: one module a dataset, and what they share.

It imports estimation, and neither vLLM nor Snakemake. Start with `prompts`, which makes the
requests; `options` finds the kinds: modules with the functions of `loading.Loader` and a class of options.
"""
