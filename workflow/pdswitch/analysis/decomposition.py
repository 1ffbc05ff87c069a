"""Where the error of the predicted throughput comes from.

Between the formula and the clock lie six other times per request. Each differs from the one before
it in a single respect, so that the logarithms of their ratios add up to the whole error:

    formula → simulated without end → simulated with the run's number of requests
    → with the run's own mean lengths → with its very lengths → fitted times of the steps it took
    → recorded times of those steps → clock
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pdswitch.profiling.curves import step_times_of
from pdswitch.simulation import geometric_lengths, simulate
from pdswitch.theory import StepTimes

# Requests drawn for each simulated mean: a standard error of about 0.2 %.
DRAWN_REQUESTS = 200_000
FEWEST_RUNS = 20

SOURCES = (
    "policy_model",
    "ramp_and_drain",
    "mean_lengths",
    "length_law",
    "scheduling",
    "step_times",
    "outside_steps",
)


def decompose(
    theory: dict[str, Any], facts: dict[str, Any], steps: pd.DataFrame, requests: pd.DataFrame
) -> dict[str, float]:
    """Split ln(measured / predicted throughput) of a run at a fixed k.

    Args:
        theory: content of `threshold.json`.
        facts: content of `run.json`.
        steps: step records.
        requests: request records.

    Returns:
        A term for each of `SOURCES`, which add up to `total`; docs/results.md says what each means.
    """
    n_slots, threshold = theory["n_slots"], facts["threshold"]
    times = step_times_of(theory["timing"])
    served = requests.sort_values("arrival_s", kind="stable")
    output, prompt = served["output_tokens"].to_numpy(), served["prompt_tokens"].to_numpy()
    count = len(served)

    def simulated(
        lengths: NDArray[np.int64], prompts: NDArray[np.int64], *, steady: bool = False
    ) -> float:
        """Seconds per request."""
        run = simulate(
            lengths,
            prompts,
            n_slots,
            threshold,
            times,
            drain=facts["drain"],
            max_num_batched_tokens=facts["engine"]["max_num_batched_tokens"],
        )
        return 1 / (run.steady_throughput if steady else run.throughput)

    def finite(p: float, mean_prompt: float) -> float:
        runs = max(FEWEST_RUNS, DRAWN_REQUESTS // count)
        prompts = whole_numbers_of_mean(mean_prompt, count)
        return float(
            np.mean([simulated(geometric_lengths(p, count, seed), prompts) for seed in range(runs)])
        )

    p, mean_prompt = theory["termination_probability"], theory["mean_prompt_tokens"]
    endless = max(DRAWN_REQUESTS, 500 * n_slots)
    chain = [
        1 / theory["predicted"]["corrected"][threshold - 1],
        simulated(
            geometric_lengths(p, endless, 0),
            whole_numbers_of_mean(mean_prompt, endless),
            steady=True,
        ),
        finite(p, mean_prompt),
        finite(1 / output.mean(), prompt.mean()),
        simulated(output, prompt),
        fitted_seconds(steps, times) / count,
        steps["duration_s"].sum() / count,
        steps["done_s"].iloc[-1] / count,
    ]
    terms = [float(np.log(before / after)) for before, after in pairwise(chain)]
    return dict(zip(SOURCES, terms, strict=True)) | {"total": sum(terms)}


def fitted_seconds(steps: pd.DataFrame, times: StepTimes) -> float:
    """Return what the steps of a run without mixed steps would take by the straight fits, in s."""
    prefill = steps.loc[steps["prefill_tokens"] > 0, "prefill_tokens"]
    decode = steps.loc[steps["decode_requests"] > 0, "decode_requests"]
    return float(
        times.alpha_p * len(prefill)
        + times.beta_p * prefill.sum()
        + times.alpha_d * len(decode)
        + times.beta_d * decode.sum()
    )


def whole_numbers_of_mean(mean: float, count: int) -> NDArray[np.int64]:
    """Return `count` whole numbers, the two around `mean`, whose mean is `mean`, at least 1."""
    return np.maximum(np.diff(np.floor(mean * np.arange(count + 1.0))), 1).astype(np.int64)
