"""The theory of the switching threshold: closed forms, corrections and the exact chain.

Times are in seconds, lengths in tokens, throughput in completed requests per second. Arrays "for
all k" have length N, index k-1. Derivations and domains of validity: docs/theory.md.

It imports numpy, scipy and numba, and no other package of this library. Start with `closed_form`.
"""

from pdswitch.theory.asymptote import asymptotic_theta, fixed_cost_ratio
from pdswitch.theory.closed_form import harmonic_gain, optimal_threshold, predicted_throughput
from pdswitch.theory.curves import (
    BudgetedPrefill,
    ContextDecode,
    DecodeCurve,
    HingePrefill,
    LinearDecode,
    LinearPrefill,
    PrefillCurve,
    StepCurves,
    TabulatedDecode,
    TabulatedPrefill,
)
from pdswitch.theory.exact import exact_throughput, optimal_threshold_exact
from pdswitch.theory.memory import MemorySafeSlots, memory_safe_slots
from pdswitch.theory.overshoot import (
    corrected_throughput,
    expected_refill,
    k_star_measured,
    optimal_threshold_corrected,
)
from pdswitch.theory.sensitivity import sensitivity
from pdswitch.theory.step_times import StepTimes
from pdswitch.theory.table import threshold_table, threshold_table_measured, transition_points
from pdswitch.theory.uncertainty import (
    ThresholdDistribution,
    bootstrap_thresholds,
    single_exit_distribution,
    threshold_distribution,
    threshold_standard_error,
    throughput_band,
)

__all__ = [
    "BudgetedPrefill",
    "ContextDecode",
    "DecodeCurve",
    "HingePrefill",
    "LinearDecode",
    "LinearPrefill",
    "MemorySafeSlots",
    "PrefillCurve",
    "StepCurves",
    "StepTimes",
    "TabulatedDecode",
    "TabulatedPrefill",
    "ThresholdDistribution",
    "asymptotic_theta",
    "bootstrap_thresholds",
    "corrected_throughput",
    "exact_throughput",
    "expected_refill",
    "fixed_cost_ratio",
    "harmonic_gain",
    "k_star_measured",
    "memory_safe_slots",
    "optimal_threshold",
    "optimal_threshold_corrected",
    "optimal_threshold_exact",
    "predicted_throughput",
    "sensitivity",
    "single_exit_distribution",
    "threshold_distribution",
    "threshold_standard_error",
    "threshold_table",
    "threshold_table_measured",
    "throughput_band",
    "transition_points",
]
