"""The step record against the worker's own clock."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from pdswitch.profiling.agreement import agreement, join_device_clock

ENGINE = {
    "n_slots": 4,
    "max_input_tokens": 128,
    "max_output_tokens": 64,
    "dtype": "float32",
    "max_num_batched_tokens": 512,
}


def record() -> pd.DataFrame:
    """An empty step, a refill, three decode steps, a refill, a decode step."""
    prefill = [0, 100, 0, 0, 0, 50, 0]
    decode = [0, 0, 4, 4, 3, 0, 4]
    done = [0.001, 0.021, 0.032, 0.043, 0.061, 0.070, 0.081]
    return pd.DataFrame(
        {
            "prefill_tokens": prefill,
            "decode_requests": decode,
            "context_tokens": 100,
            "schedule_s": [0.0, 0.001, 0.022, 0.033, 0.044, 0.062, 0.071],
            "done_s": done,
            "duration_s": [0.001, 0.020, 0.010, 0.010, 0.017, 0.008, 0.010],
        }
    )


def device(tokens=(100, 4, 4, 3, 50, 4)) -> pd.DataFrame:
    ends = [0.021, 0.032, 0.043, 0.054, 0.070, 0.081]
    return pd.DataFrame(
        {
            "tokens": tokens,
            "begin_s": [0.001, 0.021, 0.033, 0.043, 0.054, 0.070],
            "forward_s": ends,
            "end_s": ends,
            "host_begin_s": 0.0,
            "host_forward_s": 0.0,
            "host_end_s": 0.0,
        }
    )


def test_device_times_run_from_the_end_of_the_step_before():
    joined = join_device_clock(record(), device())
    assert joined["device_s"].tolist() == pytest.approx([0.020, 0.011, 0.011, 0.011, 0.016, 0.011])
    assert joined["device_idle_s"].tolist() == pytest.approx([0, 0, 0.001, 0, 0, 0])
    assert joined["kind"].tolist() == [
        "refill",
        "decode after a refill",
        "decode",
        "decode before a refill",
        "refill",
        "decode after a refill",
    ]


def test_the_table_says_by_how_much_the_record_errs():
    rows = {row["kind"]: row for row in agreement(join_device_clock(record(), device()))}
    assert rows["decode before a refill"]["record_error_s"] == pytest.approx(0.006)
    assert rows["refill"]["steps"] == 2
    assert rows["refill"]["record_sum_error"] == pytest.approx(-0.008 / 0.036)
    assert "mixed" not in rows


def test_clocks_of_different_runs_are_refused():
    with pytest.raises(ValueError, match="did not see the same steps"):
        join_device_clock(record(), device(tokens=(100, 4, 4, 4, 50, 4)))


@pytest.mark.rare
def test_the_record_agrees_with_the_worker_on_real_vllm(
    root, tiny_model, tmp_path, command_environment
):
    def run(*command: str) -> str:
        words = [sys.executable, *command]
        done = subprocess.run(
            words, cwd=root, env=command_environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    manifest = tmp_path / "model.json"
    source = ("--model", "tiny", "--source", str(tiny_model))
    run("workflow/scripts/model.py", *source, "--output", manifest)
    small = "--prefill-samples 6 --decode-repeats 1 --max-tokens 256 --thresholds 2 --requests 16"
    arguments = [*small.split(), "--mean-tokens", "12", "--output", str(tmp_path / "out")]
    model = ("--model", str(manifest), "--engine", json.dumps(ENGINE))
    run("benchmarks/step_record.py", *model, *arguments)
    found = json.loads((tmp_path / "out" / "agreement.json").read_text())
    assert (tmp_path / "out" / "step_record.png").stat().st_size > 10_000
    # Without asynchronous scheduling the record lacks only the host's own work between steps.
    for row in [*found["pure"], *found["k=2"]]:
        assert -0.5 < row["record_sum_error"] < 0.01, row
    steps = pd.read_parquet(tmp_path / "out" / "steps.parquet")
    assert (steps["forward_s"] <= steps["end_s"]).all()
    assert {"prefill", "decode", "k=2", "mixed"} == set(steps["kind_of_run"])
