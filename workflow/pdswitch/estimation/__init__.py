"""Estimators of the termination probability p from observed output lengths.

It imports numpy and scipy alone. Start with `estimators`; docs/theory.md section 10 derives them.
"""
