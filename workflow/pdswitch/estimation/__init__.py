"""Estimators of the termination probability p, one a module, and the mathematics they share.

An estimator is a module that defines `estimate`; `catalogue` finds it, by the name of the module.
The parameters of `estimate` say what it needs, out of `lengths`, `censored` and `smoothing`; it
returns an `Estimate`. PLACE is its place among the others.
It imports numpy and scipy alone. Start with `mean`; docs/theory.md section 10 derives the moments.
"""
