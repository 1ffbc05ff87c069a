"""Put the runs and the verdicts of all models and datasets into two tables."""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from pdswitch.files import atomic_path, read_json, write_parquet
from pdswitch.stages.entry import stage

COLUMNS = (
    "model",
    "dataset",
    "n_slots",
    "tensor_parallel_size",
    "k_star",
    "k_star_online",
    "k_star_measured",
    "k_star_single_exit",
    "k_hat",
    "delta_k",
    "throughput_k_star",
    "throughput_k_hat",
    "throughput_online",
    "throughput_mixed",
    "throughput_gap_percent",
)
VERDICT = ("regret", "regret_low", "regret_high", "indifference_set", "n_blocks")


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, nargs="+", required=True, help="results JSON files")
    parser.add_argument("--tables", type=Path, nargs="+", required=True, help="run tables")
    parser.add_argument("--runs", type=Path, required=True, help="output: runs.parquet")
    parser.add_argument("--summary", type=Path, required=True, help="output: summary.csv")
    arguments = parser.parse_args()
    tables = [pd.read_parquet(path) for path in arguments.tables]
    write_parquet(arguments.runs, pd.concat(tables, ignore_index=True))
    rows = []
    for path in arguments.results:
        result = read_json(path)
        row = {name: result[name] for name in COLUMNS}
        verdict = {name: result["verdict"][name] for name in VERDICT}
        rows.append(row | verdict | memory_of(result) | {"rejected": len(result["rejected"])})
    with atomic_path(arguments.summary) as aside:
        pd.DataFrame(rows).to_csv(aside, index=False)


def memory_of(result: dict[str, Any]) -> dict[str, float | None]:
    """Return the tolerated and the measured risk to run out of KV memory, where N is N*."""
    memory = result["memory"]
    return {
        "oom_tolerance": memory and memory["oom_tolerance"],
        "out_of_memory_rate": memory and memory["measured"]["out_of_memory_rate"],
    }


if __name__ == "__main__":
    main()
