"""The report: one self-contained page over all models, datasets and N."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from pdswitch.analysis.devices import device_name
from pdswitch.errors import InputError
from pdswitch.files import read_json
from pdswitch.report import wording

# Says of the results what a figure shows.
Caption = Callable[[dict[str, Any]], str]
PACKAGES = ("snakemake", "numpy", "scipy", "numba", "pandas", "pyarrow", "matplotlib")
# Where the files of a cell lie, seen from the folder of its results.
INPUTS = {
    "model": "../../model.json",
    "prompts": "../prompts.json",
    "profile": "../../profile/N={n_slots}/fit.json",
    "termination run": "termination/termination.json",
    "prediction": "threshold.json",
    "results": "{dataset}_results.json",
}
PARAMETERS = {
    # name: (part, fit, field, unit, factor)
    "α_p, prefill step": ("prefill", "linear", "alpha_p", "ms", 1e3),
    "β_p, prefill token": ("prefill", "linear", "beta_p", "µs", 1e6),
    "α_d, decode step": ("decode", "linear", "alpha_d", "ms", 1e3),
    "β_d, decoding request": ("decode", "linear", "beta_d", "µs", 1e6),
    "prefill hinge: floor": ("prefill", "hinge", "floor_s", "ms", 1e3),
    "prefill hinge: offset": ("prefill", "hinge", "offset_s", "ms", 1e3),
    "prefill hinge: token": ("prefill", "hinge", "rate_s_per_token", "µs", 1e6),
    "decode with context: step": ("decode", "context", "alpha_d", "ms", 1e3),
    "decode with context: request": ("decode", "context", "beta_d", "µs", 1e6),
    "decode with context: KV token held": ("decode", "context", "gamma_d", "ns", 1e9),
}
ERROR_SOURCES = {
    "policy_model": "policy model: formula against simulation without end",
    "ramp_and_drain": "ramp and drain: the run's number of requests",
    "mean_lengths": "mean lengths: of this run, against those p and L̄ were taken from",
    "length_law": "length law: the very lengths, against geometric ones",
    "scheduling": "scheduling: the steps taken, against the simulated ones",
    "step_times": "step-time fits, summed over the steps taken",
    "outside_steps": "engine time outside steps",
    "total": "total",
}


@dataclass(frozen=True)
class Input:
    """A file that the results rest on.

    Attributes:
        name: what it is.
        detail: what is worth knowing of it.
        sha256: of its content.
    """

    name: str
    detail: str
    sha256: str


@dataclass(frozen=True)
class Drawn:
    """A figure of the page.

    Attributes:
        name: which.
        caption: what stands under it.
        image: PNG.
    """

    name: str
    caption: str
    image: bytes


@dataclass(frozen=True)
class Cell:
    """One (model, dataset, N) of the report.

    Attributes:
        results: content of `{dataset}_results.json`.
        figures: in the order of the page.
        inputs: the files that the results rest on.
    """

    results: dict[str, Any]
    figures: list[Drawn]
    inputs: list[Input]


def load_cell(path: Path, captions: Mapping[str, Caption]) -> Cell:
    """Read a results file with the figures beside it and the manifests above it.

    Args:
        path: `{dataset}_results.json`.
        captions: of the figures by name, in the order of the page.

    Raises:
        InputError: if a figure is missing.
    """
    results = read_json(path)
    figures = []
    for name, caption in captions.items():
        file = path.with_name(f"{results['dataset']}_{name}.png")
        if not file.is_file():
            raise InputError(f"{file} is missing; draw it first: snakemake --cores all {file}")
        figures.append(Drawn(name, caption(results), file.read_bytes()))
    inputs = [_input(name, path.parent / place.format(**results)) for name, place in INPUTS.items()]
    return Cell(results, figures, inputs)


def render(template: str, cells: list[Cell], config: str) -> str:
    """Return the page.

    Args:
        template: Jinja source.
        cells: what to report, in any order.
        config: the merged config, as text.

    Raises:
        InputError: if there is nothing to report.
    """
    if not cells:
        raise InputError("there are no results to report; run the workflow first: make run")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "significant": wording.significant,
        "percent": wording.percent,
        "percent_to": wording.percent_interval,
        "seconds": wording.seconds,
        "whole": lambda value: wording.NONE if value is None else f"{value:,.0f}",
    }
    cells = sorted(cells, key=_order)
    return environment.from_string(template).render(
        sections=[_section(cell) for cell in cells],
        config=config,
        versions={name: metadata.version(name) for name in PACKAGES},
    )


def _order(cell: Cell) -> tuple[str, str, int]:
    results = cell.results
    return results["model"], results["dataset"], results["n_slots"]


def _section(cell: Cell) -> dict[str, Any]:
    """Everything the template shows of one cell."""
    results = cell.results
    return {
        "results": results,
        "inputs": cell.inputs,
        "device": device_name(results["environment"]),
        "headline": wording.headline(results),
        "warn": bool(results["rejected"] or results["verdict"].get("doubts")),
        "verdict": wording.verdict_rows(results),
        "seal": wording.seal(results["prediction"]),
        "figures": [
            (figure.name, figure.caption, _data_uri(figure.image)) for figure in cell.figures
        ],
        "parameters": parameter_rows(results["timing"]),
        "estimates": estimate_rows(results["offline_estimation"]),
        "residuals": residual_rows(results["timing"]),
        "policies": policy_rows(results),
        "checks": wording.checks(results),
        "errors": error_rows(results["error_decomposition"]),
        "sensitivity": sensitivity_rows(results),
    }


def parameter_rows(timing: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return name, value, standard error and R² of every fitted parameter."""
    rows = []
    for name, (part, kind, field, unit, factor) in PARAMETERS.items():
        fit = timing[part][kind]
        value, error = fit[field], fit.get(f"se_{field}")
        rows.append(
            (
                name,
                f"{wording.significant(factor * value)} {unit}",
                wording.NONE
                if error is None
                else f"{wording.significant(factor * error, 2)} {unit}",
                f"{fit['r_squared']:.4f}",
            )
        )
    return rows


def estimate_rows(offline: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Return estimator, p offline, p of all requests, and whether k* rests on it."""

    def plus_minus(estimate: dict[str, float]) -> str:
        p, error = estimate["p"], estimate["se"]
        return f"{wording.significant(p)} ± {wording.significant(error, 2)}"

    return [
        (
            name,
            plus_minus(estimate),
            plus_minus(offline["all_requests"][name]),
            name == offline["method"],
        )
        for name, estimate in offline["estimates"].items()
    ]


def residual_rows(timing: dict[str, Any]) -> list[tuple[str, str, int, str, str]]:
    """Return step kind, range, samples, median residual and its root mean square."""
    return [
        (
            part,
            f"{row['lo']:.0f} to {row['hi']:.0f} {unit}",
            row["n"],
            wording.seconds(row["median_s"]),
            wording.seconds(row["rmse_s"]),
        )
        for part, unit in (("prefill", "tokens"), ("decode", "requests"))
        for row in timing[part]["linear"]["residuals_by_range"]
    ]


def policy_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the measured block of every k, of the online run and of mixed, with marks."""
    chosen = results["verdict"]["indifference_set"] or []
    marks = {"k*": results["k_star"], "k̂": results["k_hat"]}
    rejected = {Path(run["run"]).name for run in results["rejected"]}
    blocks = {str(k): results["throughput_by_k"][str(k)] for k in wording.measured_grid(results)}
    blocks |= {name: results[name] for name in ("online", "mixed") if results.get(name)}
    return [
        {
            "label": name,
            "block": block,
            "marks": [mark for mark, k in marks.items() if str(k) == name],
            "near_best": name.isdigit() and int(name) in chosen,
            "rejected": name == "online" and name in rejected,
        }
        for name, block in blocks.items()
    ]


def error_rows(decomposition: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return source and contribution; logarithms of measured over predicted, which add up."""
    if decomposition is None:
        return []
    return [
        (meaning, f"{100 * decomposition[name]:+.2f} %".replace("-", "−"))
        for name, meaning in ERROR_SOURCES.items()
    ]


def sensitivity_rows(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return parameter, range tried, and what k* did over it."""
    rows = []
    for name, moved in results["sensitivity"].items():
        write = wording.seconds if name.startswith(("alpha", "beta")) else wording.significant
        low, high = min(moved["k_star"]), max(moved["k_star"])
        reach = f"{write(min(moved['values']))} to {write(max(moved['values']))}"
        rows.append((name, reach, f"{low} to {high}" if low < high else f"{low} throughout"))
    low_p, high_p = _p_interval(results)
    reach = f"{wording.significant(low_p)} to {wording.significant(high_p)}"
    rows.append(("p that gives this very k*", reach, str(results["k_star"])))
    return rows


def _p_interval(results: dict[str, Any]) -> tuple[float, float]:
    """Between which transitions p lies."""
    p = results["offline_estimation"]["termination_probability"]
    edges = [point["p"] for point in results["transition_points"]]
    below, above = [edge for edge in edges if edge <= p], [edge for edge in edges if edge > p]
    return max(below, default=0.0), min(above, default=1.0)


def _input(name: str, path: Path) -> Input:
    if not path.is_file():
        return Input(name, f"{path.name} not found", wording.NONE)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if name == "prompts":
        manifest = read_json(path)
        skipped = [f"{count} {why}" for why, count in manifest["skipped"].items()]
        again = f", {manifest['reused']} of them used again" if manifest["reused"] else ""
        detail = f"{manifest['rows']} rows{again}; skipped: {', '.join(skipped) or 'none'}"
        # Of the token ids: the manifest's own digest would change with its wording.
        return Input(name, detail, manifest["sha256"])
    if name == "model":
        manifest = read_json(path)
        return Input(name, f"{manifest['name']}, {manifest['architecture']}", manifest["digest"])
    return Input(name, path.name, digest)


def _data_uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")
