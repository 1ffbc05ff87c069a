"""Discrete-event simulation of the switching policy and of the mixed baseline."""

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
