"""The plug-in: what a vLLM server installs to switch between prefill and decode.

It imports msgspec and vLLM, and nothing else of this library. Start with `scheduler`, which vLLM
loads; `policy` says how it switches, `run` what a request may order, `record` what is written down.
"""
