"""k* for any length law, from the simulator with common random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pdswitch.errors import InputError
from pdswitch.simulation.simulator import simulate
from pdswitch.simulation.workload import resampled
from pdswitch.theory.curves import FloatArray, StepCurves
from pdswitch.theory.step_times import StepTimes
from pdswitch.theory.validation import check_slots

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class EmpiricalOptimum:
    """The best threshold on simulated requests.

    Attributes:
        threshold: k with the highest mean throughput; of ties the smallest.
        thresholds: the k tried.
        throughput: mean steady throughput of each, requests per second.
        standard_error: of each mean.
        gap_standard_error: of each k's gap to the best one, from paired replicates.
        indifferent: the k whose gap to the best is within 2 of its standard errors.
    """

    threshold: int
    thresholds: IntArray
    throughput: FloatArray
    standard_error: FloatArray
    gap_standard_error: FloatArray
    indifferent: IntArray


def k_star_empirical(
    output_tokens: ArrayLike,
    prompt_tokens: ArrayLike,
    n_slots: int,
    step_times: StepTimes | StepCurves,
    *,
    thresholds: Sequence[int] | None = None,
    completions: int = 20_000,
    replicates: int = 8,
    seed: int = 0,
    max_num_batched_tokens: int | None = None,
) -> EmpiricalOptimum:
    """Return the threshold that is best for requests drawn from an observed population.

    The simulator carries the age of every request, so that the age mix at a refill is right for
    any hazard rate. Within a replicate all thresholds serve the same requests in the same order
    (common random numbers), which takes most of the noise out of their differences. Output and
    prompt lengths of a request are drawn together.

    Args:
        output_tokens: observed output lengths, tokens.
        prompt_tokens: prompt lengths of the same requests, or one number for all.
        n_slots: N, slots.
        step_times: see `simulate`.
        thresholds: the k to try; None means all.
        completions: requests per replicate.
        replicates: independent sequences of requests, at least 2.
        seed: of the random numbers.
        max_num_batched_tokens: see `simulate`.

    Raises:
        InputError: for arguments outside their range.
    """
    check_slots(n_slots)
    if replicates < 2 or completions <= 2 * n_slots:
        raise InputError(
            f"k_star_empirical needs at least 2 replicates of more than 2·n_slots = {2 * n_slots} "
            f"completions, got {replicates} of {completions}"
        )
    output = np.asarray(output_tokens, dtype=np.int64)
    prompt = np.broadcast_to(np.asarray(prompt_tokens, dtype=np.int64), output.shape)
    wanted = np.arange(1, n_slots + 1) if thresholds is None else np.asarray(thresholds)
    measured = np.empty((replicates, wanted.size))
    for replicate in range(replicates):
        drawn = resampled(np.arange(output.size), completions, seed + replicate)
        for place, threshold in enumerate(wanted):
            measured[replicate, place] = simulate(
                output[drawn],
                prompt[drawn],
                n_slots,
                int(threshold),
                step_times,
                max_num_batched_tokens=max_num_batched_tokens,
            ).steady_throughput
    mean = measured.mean(axis=0)
    best = int(np.argmax(mean))
    gap = measured[:, best : best + 1] - measured
    root = np.sqrt(replicates)
    gap_error = gap.std(axis=0, ddof=1) / root
    return EmpiricalOptimum(
        threshold=int(wanted[best]),
        thresholds=wanted,
        throughput=mean,
        standard_error=measured.std(axis=0, ddof=1) / root,
        gap_standard_error=gap_error,
        indifferent=wanted[gap.mean(axis=0) <= 2.0 * gap_error],
    )
