"""From a source to requests: one module a dataset, and what they share.

It imports estimation, and neither vLLM nor Snakemake. Start with `prompts`, which makes the
requests; `options` finds the kinds: modules that define what `loading.Loader` names.
"""
