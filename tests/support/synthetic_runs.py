"""Folders of simulated runs in the formats of the result files: the truth behind them is known.

The simulator plays the policy with straight step times; each run's clock is then slowed by a
factor of its own, as machines drift between runs.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from pdswitch.analysis.termination import summarise_lengths
from pdswitch.files import write_json, write_records
from pdswitch.profiling.fit import fit_steps
from pdswitch.simulation import MixedStep, SimulationResult, simulate
from pdswitch.theory import (
    StepTimes,
    corrected_throughput,
    optimal_threshold,
    predicted_throughput,
)

TIMES = StepTimes(0.04, 2e-4, 0.03, 4e-4)
N_SLOTS = 8
P = 1 / 24
LIMIT = 96
BUDGET = 2048
ENGINE = {
    "vllm": "0.32.0",
    "max_num_batched_tokens": BUDGET,
    "hardware": {"cpu": "a simulated processor", "devices": []},
    "asked": {"environment": {"NCCL_DEBUG": "WARN"}, "torch_threads": 1, "cores": 1},
    "environment": {"NCCL_DEBUG": "WARN", "PATH": None},
    "workers": [{"torch_threads": 1, "cores": 1, "nice": 0}],
}
QUIET = {
    "checked_at": "2026-03-01T10:04:58+00:00",
    "decode": [{"batch_size": 1, "median_s": 0.03, "spread": 0.02, "modes_s": None}],
    "load_average": 1.1,
    "cores": 2,
    "warnings": [],
    "likely_cause": None,
}


def workload(count: int, seed: int = 0) -> pd.DataFrame:
    """Request ids with prompt and output lengths, the latter cut at LIMIT."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "request_id": [f"r{i:04d}" for i in range(count)],
            "prompt_tokens": random.integers(20, 90, count),
            "output_tokens": np.minimum(random.geometric(P, count), LIMIT),
        }
    )


def play(
    requests: pd.DataFrame, threshold: int | None, drain: str = "eager", n_slots: int = N_SLOTS
) -> SimulationResult:
    """Simulate one run with its record; without a threshold, vLLM's own policy."""
    return simulate(
        requests["output_tokens"],
        requests["prompt_tokens"],
        n_slots,
        threshold or 1,
        TIMES,
        policy="mixed" if threshold is None else "fixed",
        drain=drain,  # type: ignore[arg-type]
        max_num_batched_tokens=BUDGET,
        mixed_step=MixedStep(0.04, 2e-4, 4e-4),
        record=True,
    )


def records_of(
    requests: pd.DataFrame,
    threshold: int | None,
    slower: float = 1.0,
    drain: str = "eager",
    n_slots: int = N_SLOTS,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Step records, request records and the content of run.json."""
    run = play(requests, threshold, drain, n_slots)
    steps = run.steps_frame()
    served = run.requests_frame().assign(request_id=requests["request_id"].astype("string"))
    for frame in (steps, served):
        times = [name for name in frame if name.endswith("_s")]
        frame[times] *= slower
    facts = {
        "policy": "mixed" if threshold is None else "fixed",
        "threshold": threshold,
        "drain": drain,
        "n_slots": n_slots,
        "started_at": "2026-03-01T10:05:00+00:00",
        "wall_s": float(steps["done_s"].iloc[-1]),
        "requests": len(served),
        "prompt_tokens": int(served["prompt_tokens"].sum()),
        "output_tokens": int(served["output_tokens"].sum()),
        "tokens_asked": int(requests["output_tokens"].sum()),
        "sampling": {"temperature": 0.0},
        "engine": ENGINE,
        "conditions": {"self_check": QUIET},
        "rep": 1,
    }
    return steps, served, facts


def write_run(
    folder: Path, steps: pd.DataFrame, requests: pd.DataFrame, facts: dict[str, Any]
) -> Path:
    """Write the records of a run as a measured one leaves them."""
    write_records(folder / "steps.parquet", steps)
    write_records(folder / "requests.parquet", requests)
    write_json(folder / "run.json", facts)
    return folder


def profile_of(seed: int = 0, n_slots: int = N_SLOTS) -> pd.DataFrame:
    """Step records of profile runs with the step times of TIMES and 1 % noise."""
    random = np.random.default_rng(seed)
    rows: list[tuple[int, str, int, int, int, float]] = []
    for run, tokens in enumerate(np.geomspace(16, 720, 20).astype(int).tolist()):
        rows.append((run, "prefill", tokens, 0, 0, TIMES.alpha_p + TIMES.beta_p * tokens))
    for run, active in enumerate(list(range(1, n_slots + 1)) * 2, start=20):
        prompt = 32 if run < 20 + n_slots else 128
        for step in range(8):
            seconds = TIMES.alpha_d + TIMES.beta_d * active
            rows.append((run, "decode", 0, active, active * (prompt + step), seconds))
    columns = ["run", "kind", "prefill_tokens", "decode_requests", "context_tokens", "duration_s"]
    steps = pd.DataFrame(rows, columns=columns)
    steps["duration_s"] *= random.lognormal(0, 0.01, len(steps))
    return steps.assign(step=steps.groupby("run").cumcount(), repeat=0)


def termination_requests(count: int = 64, seed: int = 1) -> pd.DataFrame:
    """What the termination stage keeps of every request."""
    requests = workload(count, seed)
    cut = requests["output_tokens"] >= LIMIT
    return requests.assign(truncated=cut, degenerate=[i == 3 for i in range(count)], text="…")


def termination_of(requests: pd.DataFrame) -> dict[str, Any]:
    """Content of termination.json."""
    return msgspec.to_builtins(summarise_lengths(requests, 32, "mean", 0.3))


def theory_of(termination: dict[str, Any], n_slots: int = N_SLOTS) -> dict[str, Any]:
    """What the results need of threshold.json, from the profile of TIMES."""
    fit = fit_steps(profile_of(n_slots=n_slots), n_slots)
    p, prompt = termination["termination_probability"], float(termination["mean_prompt_tokens"])
    linear = fit["prefill"]["linear"] | fit["decode"]["linear"]
    times = StepTimes(*(linear[name] for name in ("alpha_p", "beta_p", "alpha_d", "beta_d")))
    k_star = optimal_threshold(n_slots, p, times.alpha_p, times.alpha_d)
    corrected = corrected_throughput(n_slots, p, times, prompt)
    return {
        "n_slots": n_slots,
        "termination_probability": p,
        "standard_error": termination["standard_error"],
        "mean_prompt_tokens": prompt,
        "timing": fit,
        "k_star": k_star,
        "k_star_measured": k_star,
        "k_star_single_exit": n_slots,
        "k_star_range": [k_star, k_star],
        "predicted": {
            "threshold": list(range(1, n_slots + 1)),
            "throughput": predicted_throughput(n_slots, p, times, prompt).tolist(),
            "single_exit": predicted_throughput(n_slots, p, times, prompt, "single_exit").tolist(),
            "corrected": corrected.tolist(),
            "measured_curves": corrected.tolist(),
            "low": (0.9 * corrected).tolist(),
            "high": (1.1 * corrected).tolist(),
        },
        "sensitivity": {"alpha_p": {"values": [0.01, 0.04], "k_star": [1, k_star]}},
        "transition_points": [{"p": 0.1, "k": k_star + 1}],
        "computed_at": "2026-03-01T10:00:00+00:00",
    }
