"""What stands under each figure in the report: what it shows, with the numbers it rests on."""

from collections.abc import Callable
from typing import Any

from pdswitch.report.wording import (
    count,
    measured_grid,
    online_basis,
    percent,
    seconds,
    significant,
    threshold,
    thresholds,
)


def throughput_vs_k(results: dict[str, Any]) -> str:
    """Caption of the sweep."""
    verdict, prediction = results["verdict"], results["prediction"]
    grid, chosen = measured_grid(results), results["verdict"]["indifference_set"]
    counted = count(sum(block["n"] for block in results["throughput_by_k"].values()), "counted run")
    shaded = f"k = {thresholds(chosen)}" if chosen else "unknown without an interval"
    return (
        f"Throughput over the threshold k: {counted} at {count(len(grid), 'threshold')}, "
        f"{count(verdict['n_blocks'], 'complete block')}, {results['num_requests']} requests each. "
        "Above, whole runs, ramp and drain included, in requests/s: "
        f"{significant(results['throughput_k_star'])} at k* = {results['k_star']}, "
        f"{significant(results['throughput_k_hat'])} at k̂ = {threshold(results['k_hat'])}, "
        f"{significant(results['throughput_online'])} online, "
        f"{significant(results['throughput_mixed'])} mixed. "
        f"Yellow, not told from k̂ at 95 %: {shaded}. "
        "Below, the steady window, which is what the formula predicts, with a mean absolute error "
        f"of {percent(prediction['mape_corrected'])} from straight fits and "
        f"{percent(prediction['mape_measured_curves'])} from measured curves. "
        "Thick bars: 95 % intervals of each k's own level, to compare with the predictions. They "
        "include what differs from block to block, which all k share: few blocks make them wide. "
        "For differences between k look at the yellow."
    )


def profiling_results(results: dict[str, Any]) -> str:
    """Caption of the step times."""
    prefill, decode = results["timing"]["prefill"]["linear"], results["timing"]["decode"]["linear"]
    hinge = results["timing"]["prefill"]["hinge"]
    low, high = prefill["token_range"]
    return (
        f"Step times. Prefill: straight line over {low:.0f} to {high:.0f} tokens, what refills of "
        f"this dataset visit ({prefill['n']} steps, R² {prefill['r_squared']:.3f}); "
        f"hinge over all tokens (R² {hinge['r_squared']:.3f}). Decode: straight line in the "
        f"decoding requests ({decode['n']} steps, R² {decode['r_squared']:.3f}). "
        "Residuals: measured over straight fit, less one."
    )


def input_length_distribution(results: dict[str, Any]) -> str:
    """Caption of the prompt lengths."""
    mean = results["offline_estimation"]["mean_prompt_tokens"]
    return f"Prompt lengths, chat template included; {mean:.1f} tokens in the mean."


def output_length_distribution(results: dict[str, Any]) -> str:
    """Caption of the output lengths."""
    offline = results["offline_estimation"]
    share = percent(offline["truncated"] / offline["n"])
    return (
        f"Output lengths of {offline['n']} answers that could end by themselves: "
        f"{offline['truncated']} ({share}) were cut at the limit, {offline['degenerate']} end in a "
        f"repetition loop. Mean {offline['mean_output_tokens']:.1f} tokens, coefficient of "
        f"variation {offline['cv']:.2f} (geometric law: just below 1). k* rests on "
        f"p = {significant(offline['termination_probability'])} ± "
        f"{significant(offline['standard_error'], 2)} from the first {offline['n_offline']} "
        f"answers ({offline['method']})."
    )


def hazard(results: dict[str, Any]) -> str:
    """Caption of the hazard rate."""
    offline = results["offline_estimation"]
    return (
        "Chance to end with the next token, by age; the theory takes it to be the same at every "
        f"age. Largest gap to the geometric law (Kolmogorov–Smirnov): "
        f"{significant(offline['geometric_ks_distance'], 3)}."
    )


def online_kstar_convergence(results: dict[str, Any]) -> str:
    """Caption of the online estimation."""
    online = results["online_estimation"]
    offline_p = significant(results["offline_estimation"]["termination_probability"])
    found = (
        "No k* online"
        if online["k_star"] is None
        else f"k* = {online['k_star']} at p = {significant(online['termination_probability'])}"
    )
    return (
        "Threshold in force and estimate of p while serving. "
        f"{found} ({online_basis(results)}); offline: {results['k_star']} at {offline_p}. "
        "Grey: ramp and drain. In the drain only long answers are left, so that p and k* fall."
    )


def timeline(results: dict[str, Any]) -> str:
    """Caption of the phases."""
    block = results["throughput_by_k"].get(str(results["k_star"])) or {}
    refill = block.get("mean_refill")
    text = f"Phases of the first run at k* = {results['k_star']}, and the requests in slots."
    if refill is None:
        return text
    return (
        f"{text} A refill admits {refill:.1f} requests in the mean; the 99th percentile of the gap "
        f"between two tokens of a request is {seconds(block['itl']['p99'])}."
    )


# In the order of the report.
CAPTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "throughput_vs_k": throughput_vs_k,
    "profiling_results": profiling_results,
    "input_length_distribution": input_length_distribution,
    "output_length_distribution": output_length_distribution,
    "hazard": hazard,
    "online_kstar_convergence": online_kstar_convergence,
    "timeline": timeline,
}
