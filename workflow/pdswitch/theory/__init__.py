"""The theory of the switching threshold: closed forms, corrections and the exact chain.

Times are in seconds, lengths in tokens, throughput in completed requests per second. Arrays "for
all k" have length N, index k-1. Derivations and domains of validity: docs/theory.md.
"""
from pdswitch.theory.closed_form import optimal_threshold, predicted_throughput, harmonic_gain
from pdswitch.theory.overshoot import corrected_throughput, expected_refill, k_star_measured
from pdswitch.theory.exact import exact_throughput, optimal_threshold_exact
from pdswitch.theory.step_times import StepTimes
from pdswitch.theory.curves import *
