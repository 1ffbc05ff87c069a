"""Discrete-event simulation of the switching policy and of the mixed baseline.

It imports theory for step times, and neither vLLM nor Snakemake. Start with `simulator`; the loop
over events is `_kernel`.
"""

from pdswitch.simulation.empirical import EmpiricalOptimum, k_star_empirical
from pdswitch.simulation.simulator import MixedStep, SimulationResult, simulate
from pdswitch.simulation.workload import geometric_lengths, poisson_arrivals, resampled

__all__ = [
    "EmpiricalOptimum",
    "MixedStep",
    "SimulationResult",
    "geometric_lengths",
    "k_star_empirical",
    "poisson_arrivals",
    "resampled",
    "simulate",
]
