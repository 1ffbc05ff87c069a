"""What a run's records take on the disk, and what is lost in them."""

import numpy as np
import pandas as pd
import pytest
from pandas.api.types import is_numeric_dtype

from pdswitch.files import TIME_RESOLUTION_S, write_records
from synthetic_runs import play, workload

TIMES = ("schedule_s", "done_s", "duration_s")


def recorded(count: int) -> pd.DataFrame:
    """The steps of a simulated run whose clock, in nanoseconds, jitters as a real one does."""
    steps = play(workload(count), 12, n_slots=32).steps_frame()
    random = np.random.default_rng(0)
    steps["duration_s"] *= random.lognormal(0, 0.05, len(steps))
    steps["done_s"] = steps["duration_s"].cumsum().round(9)
    ahead = random.uniform(1e-5, 1e-4, len(steps))
    steps["schedule_s"] = (steps["done_s"] - steps["duration_s"] - ahead).clip(0).round(9)
    return steps


@pytest.mark.parametrize("requests", [120, 500])
def test_a_field_of_a_step_takes_two_bytes_at_most(tmp_path, requests):
    steps = recorded(requests)
    write_records(tmp_path / "steps.parquet", steps)
    size = (tmp_path / "steps.parquet").stat().st_size
    assert size / steps.size <= 2


def test_times_are_rounded_to_a_microsecond_and_nothing_else_is_lost(tmp_path):
    steps = recorded(60)
    write_records(tmp_path / "steps.parquet", steps)
    again = pd.read_parquet(tmp_path / "steps.parquet")
    assert list(again.columns) == list(steps.columns)
    for name in steps:
        if name in TIMES:
            assert again[name].to_numpy() == pytest.approx(
                steps[name].to_numpy(), abs=TIME_RESOLUTION_S / 2, rel=0
            )
        else:
            assert list(again[name]) == list(steps[name])
            if is_numeric_dtype(steps[name]):
                assert again[name].dtype == steps[name].dtype


def test_rounded_times_survive_another_writing(tmp_path):
    write_records(tmp_path / "once.parquet", recorded(60))
    once = pd.read_parquet(tmp_path / "once.parquet")
    write_records(tmp_path / "twice.parquet", once)
    assert (tmp_path / "once.parquet").read_bytes() == (tmp_path / "twice.parquet").read_bytes()


def test_a_time_that_never_came_stays_unknown(tmp_path):
    write_records(tmp_path / "requests.parquet", pd.DataFrame({"finish_s": [1.5, float("nan")]}))
    again = pd.read_parquet(tmp_path / "requests.parquet")
    assert again["finish_s"].isna().tolist() == [False, True]
