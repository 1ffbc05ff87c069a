"""Make the figures of docs/theory.md, and fill in the numbers that it quotes.

Every table of the document stands between two markers and is written by this script, so that no
number can differ from what the library says. With --check nothing is written, and the exit status
is 1 if a table is out of date.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import digamma

from pdswitch.errors import InputError
from pdswitch.estimation.moments import ema_inverse_moments, ema_length_moments, window_moments
from pdswitch.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    house_style,
    legend_below,
)
from pdswitch.simulation import geometric_lengths, simulate
from pdswitch.stages.entry import stage
from pdswitch.theory import (
    HingePrefill,
    LinearDecode,
    StepCurves,
    StepTimes,
    asymptotic_theta,
    corrected_throughput,
    exact_throughput,
    k_star_measured,
    memory_safe_slots,
    optimal_threshold,
    optimal_threshold_corrected,
    predicted_throughput,
    threshold_distribution,
)

FloatArray = NDArray[np.float64]
Table = list[str]

ROOT = Path(__file__).resolve().parents[1]
DPI = 130
WIDTH_IN = 7.0

# The example of the design: an H200 with an 8B model, 128 prompt and 128 output tokens on average.
N_SLOTS, P, PROMPT = 256, 1 / 128, 128.0
EXAMPLE = StepTimes(alpha_p=12e-3, beta_p=2e-5, alpha_d=6.5e-3, beta_d=2e-5)
# Prefill as measured there: 9.5 ms at least, then 22.5 µs a token.
HINGE = HingePrefill(floor_s=9.5e-3, offset_s=0.0, rate_s_per_token=22.5e-6)

SLOTS = (16, 64, 256, 1024)
ENDINGS = (0.01, 0.1, 1.0, 2.0, 4.0, 8.0)
RATIOS = np.geomspace(0.1, 300.0, 40)


def percent(value: float, digits: int = 2) -> str:
    """Return a fraction as a percentage."""
    # Adding 0 turns a minus zero into a zero.
    return f"{round(100 * value, digits) + 0.0:.{digits}f} %"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """Return a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def panels(count: int, height_in: float = 2.9) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(axes)


# -- the example -----------------------------------------------------------------------------------


def example() -> tuple[Figure, Table]:
    """Draw all curves of the example, and tell what each k* costs."""
    k = np.arange(1, N_SLOTS + 1)
    exact = exact_throughput(N_SLOTS, P, EXAMPLE, PROMPT)
    arguments = (N_SLOTS, P, EXAMPLE.alpha_p, EXAMPLE.alpha_d, EXAMPLE.beta_d)
    single = optimal_threshold(*arguments, "single_exit")
    closed = optimal_threshold(*arguments)
    corrected, corrected_curve = optimal_threshold_corrected(N_SLOTS, P, EXAMPLE, PROMPT)
    predicted = predicted_throughput(N_SLOTS, P, EXAMPLE, PROMPT)
    single_curve = predicted_throughput(N_SLOTS, P, EXAMPLE, PROMPT, "single_exit")
    figure, (axes, errors) = panels(2)
    axes.plot(k, exact, color=BLACK, label="exact chain")
    axes.plot(k, corrected_curve, color=GREEN, ls=":", lw=2, label="corrected")
    axes.plot(k, predicted, color=BLUE, ls="--", label="predicted, j·p")
    axes.plot(k, single_curve, color=RED, ls="-.", label="predicted, single exit")
    axes.plot(closed, exact[closed - 1], "o", color=BLUE, label=f"k* = {closed}")
    axes.plot(single, exact[single - 1], "s", color=RED, label=f"single exit: {single}")
    axes.set(xlabel="threshold k", ylabel="requests/s", ylim=(0, None), title="Throughput")
    for curve, colour, line, label in (
        (predicted, BLUE, "--", "predicted, j·p"),
        (simple_overshoot(N_SLOTS, P, EXAMPLE, PROMPT), ORANGE, "-.", "X at k + (N-k)p/2"),
        (corrected_curve, GREEN, ":", "corrected"),
    ):
        errors.loglog(
            k, np.maximum(np.abs(curve / exact - 1), 1e-9), color=colour, ls=line, label=label
        )
    errors.set(xlabel="threshold k", title="Relative error against the exact chain")
    legend_below(figure, axes, errors, columns=4)
    best = int(exact.argmax()) + 1
    rows = [
        (
            name,
            threshold,
            f"{exact[threshold - 1]:.2f}",
            percent(1 - exact[threshold - 1] / exact.max(), 3),
        )
        for name, threshold in (
            ("best on the exact chain", best),
            ("corrected curve", corrected),
            ("closed form, j·p", closed),
            ("published, single exit", single),
            ("k = 1", 1),
            ("k = N", N_SLOTS),
        )
    ]
    lines = table(("threshold by", "k", "exact requests/s", "loss"), rows)
    lines += [
        "",
        "At its own optimum the single-exit curve predicts "
        f"{single_curve[single - 1]:.1f} requests/s, "
        f"{percent(single_curve[single - 1] / exact[single - 1], 0)} of the exact value there.",
        "",
        "Error of the curves against the exact chain:",
        "",
    ]
    shown = (1, 2, 3, 5, 10, closed, 128)
    curves = (
        ("X(k)", predicted),
        ("X(k + (N-k)p/2)", simple_overshoot(N_SLOTS, P, EXAMPLE, PROMPT)),
        ("corrected", corrected_curve),
    )
    lines += table(
        ("curve", *(f"k = {at}" for at in shown)),
        [
            (name, *(percent(curve[at - 1] / exact[at - 1] - 1) for at in shown))
            for name, curve in curves
        ],
    )
    return figure, lines


def simple_overshoot(n_slots: int, p: float, step_times: StepTimes, prompt: float) -> FloatArray:
    """Return the closed form taken at k + (N-k)·p/2, between whole numbers by digamma functions."""
    k = np.arange(1.0, n_slots + 1)
    a = k + (n_slots - k) * p / 2
    harmonic = digamma(n_slots + 1) - digamma(n_slots - a + 1)
    decode = (step_times.alpha_d * harmonic + step_times.beta_d * a) / p
    return np.asarray(a / (step_times.alpha_p + step_times.beta_p * a * prompt + decode))


# -- corrections and regret ------------------------------------------------------------------------


def corrections() -> tuple[Figure, Table]:
    """Show how far each curve is from the exact chain, at worst over k >= 2 and alpha_p/alpha_d."""
    curves: list[tuple[str, Callable[..., FloatArray]]] = [
        ("X(k)", predicted_throughput),
        ("X(k + (N-k)p/2)", simple_overshoot),
        ("corrected", corrected_throughput),
    ]
    worst = {name: np.zeros((len(SLOTS), len(ENDINGS))) for name, _ in curves}
    for row, n_slots in enumerate(SLOTS):
        for column, endings in enumerate(ENDINGS):
            for alpha_p in (0.1, 1.0, 10.0, 1000.0):
                arguments = (n_slots, endings / n_slots, StepTimes(alpha_p, 0.0, 1.0, 0.0), 1.0)
                exact = exact_throughput(*arguments)
                for name, curve in curves:
                    error = np.abs(curve(*arguments) / exact - 1)[1:].max()
                    worst[name][row, column] = max(worst[name][row, column], error)
    figure, axes = panels(3)
    for part, (name, _) in zip(axes, curves, strict=True):
        for values, n_slots, colour, marker in zip(
            worst[name], SLOTS, (GREY, SKY, BLUE, BLACK), "osv^", strict=True
        ):
            part.loglog(
                ENDINGS,
                np.maximum(values, 1e-8),
                marker=marker,
                color=colour,
                label=f"N = {n_slots}",
            )
        part.axhline(0.01, color=RED, lw=0.8, ls="--")
        part.set(xlabel="N·p", title=name, ylim=(1e-8, 3))
    axes[0].set_ylabel("worst relative error, k ≥ 2")
    legend_below(figure, axes[0], columns=4)
    rows = [
        (name if n_slots == SLOTS[0] else "", n_slots, *(percent(v, 3) for v in worst[name][row]))
        for name, _ in curves
        for row, n_slots in enumerate(SLOTS)
    ]
    return figure, table(("curve", "N", *(f"N·p = {e:g}" for e in ENDINGS)), rows)


def seconds_per_completion(
    curve: Callable[..., FloatArray], n_slots: int, p: float
) -> tuple[FloatArray, FloatArray]:
    """Return what alpha_p and alpha_d are multiplied with: 1/X is linear in the times."""
    prefill = 1 / curve(n_slots, p, StepTimes(1.0, 0.0, 0.0, 0.0), 1.0)
    both = 1 / curve(n_slots, p, StepTimes(1.0, 0.0, 1.0, 0.0), 1.0)
    return prefill, both - prefill


def worst_losses(n_slots: int, p: float) -> dict[str, float]:
    """Return the largest loss of each choice of k on the exact chain, over alpha_p/alpha_d."""
    prefill, decode = seconds_per_completion(exact_throughput, n_slots, p)
    prefill_c, decode_c = seconds_per_completion(corrected_throughput, n_slots, p)
    worst: dict[str, float] = {}
    for ratio in RATIOS.tolist():
        exact = 1 / (ratio * prefill + decode)
        chosen = {
            "closed form": optimal_threshold(n_slots, p, ratio, 1.0),
            "corrected": int((1 / (ratio * prefill_c + decode_c)).argmax()) + 1,
            "single exit": optimal_threshold(n_slots, p, ratio, 1.0, 0.0, "single_exit"),
        }
        for name, k in chosen.items():
            worst[name] = max(worst.get(name, 0.0), float(1 - exact[k - 1] / exact.max()))
    return worst


def regret() -> tuple[Figure, Table]:
    """Show what each choice of k loses at worst, by N and N·p."""
    endings = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    slots = (8, 16, 32, 64, 128, 256, 512, 1024)
    names = ("closed form", "corrected", "single exit")
    worst = {name: np.full((len(slots), len(endings)), np.nan) for name in names}
    for row, n_slots in enumerate(slots):
        for column, ends in enumerate(endings):
            if ends / n_slots <= 0.5:
                for name, loss in worst_losses(n_slots, ends / n_slots).items():
                    worst[name][row, column] = loss
    figure, axes = panels(3)
    for part, name in zip(axes, names, strict=True):
        for n_slots, colour, marker in zip(
            (8, 32, 128, 256, 1024), (ORANGE, GREY, SKY, BLUE, BLACK), "Dosv^", strict=True
        ):
            values = worst[name][slots.index(n_slots)]
            part.loglog(
                endings,
                np.maximum(values, 1e-6),
                marker=marker,
                color=colour,
                label=f"N = {n_slots}",
            )
        part.axhline(1e-3, color=RED, lw=0.8, ls="--")
        part.set(xlabel="N·p", title=name, ylim=(1e-6, 1))
    axes[0].set_ylabel("worst loss of throughput")
    legend_below(figure, axes[0], columns=5)

    def cell(value: float) -> str:
        return "" if np.isnan(value) else percent(value, 3)

    rows = [
        (name if n_slots == slots[0] else "", n_slots, *(cell(v) for v in worst[name][row]))
        for name in names
        for row, n_slots in enumerate(slots)
    ]
    return figure, table(("k by", "N", *(f"N·p = {e:g}" for e in endings)), rows)


# -- the asymptote ---------------------------------------------------------------------------------


def asymptote() -> tuple[Figure, Table]:
    """Draw k*/N against the one ratio that decides, and its distribution in the example."""
    ratio = np.geomspace(1e-5, 1e3, 400)
    figure, (axes, spread) = panels(2)
    axes.semilogx(ratio, asymptotic_theta(ratio), color=BLACK, label="theta (N → ∞)")
    for n_slots, colour in ((8, ORANGE), (64, BLUE)):
        whole = [optimal_threshold(n_slots, 1.0, float(r), 1.0) / n_slots for r in ratio]
        axes.step(ratio, whole, color=colour, lw=0.9, where="post", label=f"k*/N, N = {n_slots}")
    axes.semilogx(
        ratio, np.minimum(np.sqrt(2 * ratio), 1), color=GREY, ls=":", label="sqrt(2·ratio)"
    )
    axes.set(xlabel="p·alpha_p/alpha_d", ylabel="k*/N", title="One ratio decides")
    exact = exact_throughput(N_SLOTS, P, EXAMPLE, PROMPT)
    rows = []
    for relative, colour in ((0.05, BLUE), (0.15, ORANGE), (0.4, RED)):
        error = relative * EXAMPLE.alpha_p
        found = threshold_distribution(
            N_SLOTS, P, 0.06 * P, EXAMPLE.alpha_p, EXAMPLE.alpha_d, [[error**2, 0], [0, 1e-8]]
        )
        values, counts = np.unique(found.samples, return_counts=True)
        label = f"se(alpha_p)/alpha_p = {relative:.0%}"
        spread.step(values, counts / counts.sum(), where="mid", color=colour, label=label)
        low, high = found.interval()
        loss = np.quantile(1 - exact[found.samples - 1] / exact.max(), 0.95)
        rows.append((f"{relative:.0%}", f"{low} to {high}", percent(float(loss), 2)))
    spread.set(xlabel="k*", ylabel="share of draws", title="k* under uncertain parameters")
    legend_below(figure, axes, spread, columns=4)
    head = ("standard error of alpha_p", "95 % interval of k*", "loss not passed in 95 % of draws")
    return figure, table(head, rows)


# -- hinge prefill ---------------------------------------------------------------------------------


def hinge() -> tuple[Figure, Table]:
    """Fit straight lines to a hinge over different ranges: k* follows the range."""
    decode = LinearDecode(EXAMPLE.alpha_d, EXAMPLE.beta_d)
    curves = StepCurves(HINGE, decode)
    exact = exact_throughput(N_SLOTS, P, curves, PROMPT)
    measured, _ = k_star_measured(N_SLOTS, P, *curves, PROMPT)
    upper = np.geomspace(256, 32768, 60)

    def fit(high: float) -> tuple[float, int]:
        tokens = np.linspace(PROMPT, high, 200)
        alpha_p = max(float(np.polyfit(tokens, HINGE(tokens), 1)[1]), 0.0)
        return alpha_p, optimal_threshold(N_SLOTS, P, alpha_p, EXAMPLE.alpha_d)

    fitted = [fit(float(high)) for high in upper]
    figure, (shape, moved) = panels(2)
    tokens = np.linspace(0, 3000, 300)
    shape.plot(tokens, 1e3 * HINGE(tokens), color=BLACK, label="hinge")
    for high, colour, line in ((512, BLUE, "--"), (2048, ORANGE, "-."), (8192, RED, ":")):
        at = np.linspace(PROMPT, high, 200)
        slope, intercept = np.polyfit(at, HINGE(at), 1)
        shape.plot(
            tokens,
            1e3 * (intercept + slope * tokens),
            color=colour,
            ls=line,
            label=f"fit to {high}",
        )
    shape.set(xlabel="prompt tokens in a step", ylabel="ms", title="Prefill, and straight fits")
    shape.set_ylim(0, 70)
    shape.legend(loc="upper left")
    moved.semilogx(upper, [k for _, k in fitted], color=BLUE, label="k* of the straight fit")
    moved.axhline(measured, color=BLACK, ls="--", label=f"k* of the hinge: {measured}")
    moved.set(
        xlabel="largest token count fitted", ylabel="threshold k", title="k* follows the range"
    )
    moved.legend(loc="upper right")
    rows: list[tuple[object, ...]] = []
    for high in (256, 512, 1024, 2048, 4096, 8192, 32768):
        alpha_p, k = fit(high)
        rows.append(
            (high, f"{1e3 * alpha_p:.2f} ms", k, percent(1 - exact[k - 1] / exact.max(), 2))
        )
    rows.append(("hinge itself", "", measured, percent(1 - exact[measured - 1] / exact.max(), 2)))
    return figure, table(("fitted from 128 to", "alpha_p", "k*", "loss on the hinge"), rows)


# -- other length laws -----------------------------------------------------------------------------


def laws(mean: int, count: int) -> dict[str, NDArray[np.int64]]:
    """Return output lengths of one mean under a falling, a constant and a rising hazard."""
    rng = np.random.default_rng(0)
    log_normal = np.ceil(rng.lognormal(np.log(mean) - 0.72, 1.2, count)).astype(np.int64)
    return {
        "falling hazard (log-normal)": log_normal,
        "constant hazard (geometric)": geometric_lengths(1 / mean, count, 1),
        "rising hazard (uniform)": rng.integers(mean // 2, 3 * mean // 2 + 1, count),
    }


def hazards() -> tuple[Figure, Table]:
    """Show where the length law matters: long cycles only."""
    n_slots, mean, count = 128, 100, 100_000
    thresholds = np.unique(np.r_[1:17, np.geomspace(16, n_slots, 30).astype(int)])
    figure, axes = panels(2)
    rows = []
    for part, alpha_p in zip(axes, (12e-3, 0.65), strict=True):
        times = StepTimes(alpha_p, 2e-5, 6.5e-3, 2e-5)
        closed = optimal_threshold(n_slots, 1 / mean, times.alpha_p, times.alpha_d)
        for (name, lengths), colour, line in zip(
            laws(mean, count).items(), (RED, BLACK, GREEN), ("-.", "-", "--"), strict=True
        ):
            found = np.array(
                [
                    simulate(lengths, 100, n_slots, int(k), times).steady_throughput
                    for k in thresholds
                ]
            )
            best = int(thresholds[found.argmax()])
            at_closed = simulate(lengths, 100, n_slots, closed, times).steady_throughput
            exact = exact_throughput(n_slots, 1 / lengths.mean(), times, 100, thresholds.tolist())
            half = thresholds <= n_slots // 4
            rows.append(
                (
                    f"{alpha_p / times.alpha_d:.3g}",
                    name,
                    best,
                    closed,
                    percent(1 - at_closed / max(found.max(), at_closed), 1),
                    percent(float(np.abs(exact / found - 1)[half].max()), 1),
                    percent(float(np.abs(exact / found - 1).max()), 0),
                )
            )
            part.semilogx(thresholds, found, color=colour, ls=line, label=name)
            part.plot(best, found.max(), "o", color=colour)
        part.axvline(closed, color=GREY, lw=0.8)
        part.set(
            xlabel="threshold k",
            ylabel="requests/s",
            title=f"alpha_p/alpha_d = {alpha_p / times.alpha_d:.3g}; grey: closed-form k*",
        )
    legend_below(figure, axes[0], columns=3)
    head = (
        "alpha_p/alpha_d",
        "law, mean 100 tokens",
        "best k",
        "closed-form k*",
        "loss at k*",
        "error of the geometric chain, k ≤ N/4",
        "any k",
    )
    return figure, table(head, rows)


# -- memory ----------------------------------------------------------------------------------------


def plain_normal_bound(
    budget: float, p: float, prompt: int, variance: float, tolerance: float
) -> int:
    """Return the largest N with N·m + z·sqrt(N(Var L + 1/p²)) + 1/(p²·L) <= budget."""
    z = NormalDist().inv_cdf(1 - tolerance)
    largest = 0
    for n_slots in range(1, int(budget / prompt) + 1):
        theta = optimal_threshold(n_slots, p, EXAMPLE.alpha_p, EXAMPLE.alpha_d) / n_slots
        age = (1 - theta) / (theta * p) * -np.log1p(-theta) if theta < 1 else 0.0
        spread = z * np.sqrt(n_slots * (variance + 1 / p**2))
        if n_slots * (prompt + age) + spread + 1 / (p * p * prompt) <= budget:
            largest = n_slots
    return largest


def memory() -> tuple[Figure, Table]:
    """Simulate how often the peak need passes the budget at each bound's N*."""
    names = ("published", "plain normal", "normal")
    rows = []
    heights: dict[str, list[float]] = {name: [] for name in names}
    labels = []
    for tolerance, slots, p, prompt, variation in (
        (0.05, 32, 1 / 256, 32, 0.0),
        (0.05, 256, 1 / 32, 256, 0.0),
        (0.05, 256, 1 / 128, 512, 0.0),
        (0.05, 256, 1 / 128, 512, 1.0),
        (0.05, 256, 1 / 512, 2048, 1.0),
        (0.01, 24, 1 / 128, 2048, 1.0),
        (0.01, 256, 1 / 128, 128, 1.0),
        (0.01, 256, 1 / 512, 2048, 1.0),
    ):
        variance = (variation * prompt) ** 2
        budget = slots * (prompt + 1 / p)
        common = (budget, p, EXAMPLE.alpha_p, EXAMPLE.alpha_d, prompt, variance, tolerance)
        chosen = {
            "published": memory_safe_slots(*common, bound="published").n_slots,
            "plain normal": plain_normal_bound(budget, p, prompt, variance, tolerance),
            "normal": memory_safe_slots(*common).n_slots,
        }
        row: list[object] = [f"{tolerance:.0%}", slots, f"1/{1 / p:.0f}", prompt, f"{variation:g}"]
        for name, n_slots in chosen.items():
            threshold = optimal_threshold(n_slots, p, EXAMPLE.alpha_p, EXAMPLE.alpha_d)
            chance = over_budget(n_slots, threshold, p, prompt, variance, budget)
            heights[name].append(chance / tolerance)
            row += [n_slots, percent(chance, 1)]
        rows.append(row)
        labels.append(f"1/{1 / p:.0f}\n{prompt}\n{variation:g}\n{slots}\n{tolerance:.0%}")
    figure, (axes,) = panels(1)
    at = np.arange(len(labels))
    for place, (name, colour, hatch) in enumerate(
        zip(names, (ORANGE, GREY, BLUE), ("//", "..", ""), strict=True)
    ):
        where = at + 0.27 * (place - 1)
        axes.bar(where, heights[name], 0.27, color=colour, hatch=hatch, label=f"{name} bound")
    axes.axhline(1.0, color=RED, lw=0.8, ls="--", label="tolerated")
    axes.set_yscale("log")
    axes.set_xticks(at, labels)
    axes.set(
        ylabel="cycles over budget / tolerated",
        title="Simulated at each bound's N*; below: p, L, CV of L, slots budgeted, tolerated",
    )
    legend_below(figure, axes, columns=4)
    head = ["ε", "budgeted slots", "p", "L", "CV of L"]
    for name in names:
        head += [f"{name} N*", "over budget"]
    return figure, table(head, rows)


def over_budget(
    n_slots: int, threshold: int, p: float, prompt: int, variance: float, budget: float
) -> float:
    """Return the simulated chance that a cycle's peak passes the budget."""
    count = 2_000_000
    prompts = np.full(count, prompt)
    if variance > 0:
        drawn = np.random.default_rng(5).gamma(prompt**2 / variance, variance / prompt, count)
        prompts = np.maximum(np.rint(drawn), 1).astype(np.int64)
    times = StepTimes(1.0, 0.0, 1.0, 0.0)
    result = simulate(geometric_lengths(p, count, 6), prompts, n_slots, threshold, times)
    return result.over_budget_probability(budget, after_s=20 / p)


# -- estimators ------------------------------------------------------------------------------------


def estimators() -> tuple[Figure, Table]:
    """Show the stationary bias of the moving averages, and what it does to k*."""
    smoothing = np.geomspace(0.01, 1.0, 40)
    figure, (axes, moved) = panels(2)
    for p, colour, marker in ((1 / 32, ORANGE, "s"), (1 / 128, BLUE, "o"), (1 / 1024, BLACK, "^")):
        length = [ema_length_moments(p, a)[0] / p for a in smoothing]
        inverse = ema_inverse_moments(p, 0.3)[0] / p
        axes.loglog(smoothing, length, color=colour, label=f"EMA of L, p = 1/{1 / p:.0f}")
        axes.axhline(inverse, color=colour, ls="--", lw=0.8)
        axes.plot(0.3, inverse, marker, color=colour, label=f"EMA of 1/L, p = 1/{1 / p:.0f}")
    axes.set(xlabel="smoothing a", ylabel="mean estimate / p", title="Stationary bias")
    legend_below(figure, axes, columns=3)
    exact = exact_throughput(N_SLOTS, P, EXAMPLE, PROMPT)
    rows = []
    for name, moments, a in (
        ("EMA of 1/L (reference)", ema_inverse_moments, 0.3),
        ("EMA of L", ema_length_moments, 0.3),
        ("EMA of L", ema_length_moments, 0.05),
        ("EMA of L", ema_length_moments, 0.01),
        ("window, or completions per token", window_moments, 64),
    ):
        mean, deviation = moments(P, a)
        k = optimal_threshold(N_SLOTS, mean, EXAMPLE.alpha_p, EXAMPLE.alpha_d)
        loss = percent(1 - exact[k - 1] / exact.max(), 2)
        rows.append((name, a, f"{mean / P:.2f}", f"{deviation / P:.2f}", k, loss))
    scale = np.geomspace(0.25, 16, 100)
    k_of = [optimal_threshold(N_SLOTS, P * s, EXAMPLE.alpha_p, EXAMPLE.alpha_d) for s in scale]
    moved.semilogx(scale, 100 * (1 - exact[np.array(k_of) - 1] / exact.max()), color=PURPLE)
    moved.set(xlabel="estimate / p", ylabel="loss, %", title="What a wrong p costs, example")
    head = (
        "estimator",
        "a or W",
        "mean / p",
        "standard deviation / p",
        "k* at the mean",
        "loss",
    )
    return figure, table(head, rows)


# -- the document ----------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[], tuple[Figure, Table]]] = {
    "example": example,
    "corrections": corrections,
    "regret": regret,
    "asymptote": asymptote,
    "hinge": hinge,
    "hazards": hazards,
    "memory": memory,
    "estimators": estimators,
}


def fill(document: str, name: str, lines: Table) -> str:
    """Return the document with the table between its markers replaced.

    Raises:
        InputError: if the markers are not there exactly once.
    """
    pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if len(pattern.findall(document)) != 1:
        raise InputError(f"the document needs the markers of table {name} exactly once")
    text = "".join(f"{line}\n" for line in lines)
    return pattern.sub(lambda match: match[1] + text + match[2], document)


@stage
def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--document", type=Path, default=ROOT / "docs/theory.md")
    parser.add_argument("--figures", type=Path, default=ROOT / "docs/figures")
    parser.add_argument("--only", choices=list(SECTIONS), nargs="+", default=list(SECTIONS))
    parser.add_argument("--check", action="store_true", help="write nothing, compare the tables")
    arguments = parser.parse_args()
    before = arguments.document.read_text(encoding="utf-8")
    document = before
    for name in arguments.only:
        with house_style():
            figure, lines = SECTIONS[name]()
            document = fill(document, name, lines)
            if not arguments.check:
                arguments.figures.mkdir(parents=True, exist_ok=True)
                path = arguments.figures / f"theory_{name}.png"
                figure.savefig(path, dpi=DPI, metadata={"Software": None})
                print(path)
    if not arguments.check:
        arguments.document.write_text(document, encoding="utf-8")
    elif document != before:
        print(f"{arguments.document} is out of date; run {Path(__file__).name}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
