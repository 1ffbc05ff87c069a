"""The datasets on real samples of their sources, where a machine has them.

`PDSWITCH_SAMPLES` names the folder; without it `../shared/data` beside the checkout is tried.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from pdswitch.datasets.loading import load
from pdswitch.datasets.options import dataset_options
from pdswitch.datasets.sample import Skipped

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("PDSWITCH_SAMPLES", ROOT.parent / "shared/data"))

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real samples in {FOLDER}")

CASES = {
    "alpaca": ("alpaca", "source", "alpaca/alpaca_data_1k.json", {}, 1000, 0),
    "sharegpt": ("sharegpt", "sharegpt_path", "sharegpt", {}, 2023, 11),
    "gsm8k": ("processbench", "source", "processbench", {}, 400, 0),
    "math": ("processbench", "source", "processbench", {"processbench_split": "math"}, 1000, 0),
    "longbench": ("longbench", "source", "longbench_v2/data_subset_short.json", {}, 33, 0),
    "longbench_v1": ("longbench_v1", "source", "longbench_v1", {}, 102, 0),
    "azure": (
        "trace",
        "source",
        "azure_llm_trace/AzureLLMInferenceTrace_conv.csv",
        {},
        19366,
        0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_real_records_become_requests(case):
    kind, key, path, further, wanted, left_out = CASES[case]
    place = FOLDER / path
    if kind in {"sharegpt", "longbench_v1"}:
        (place,) = place.iterdir()
    outcomes, _ = load(dataset_options(kind, {key: str(place), **further}))
    found = Counter(isinstance(outcome, Skipped) for outcome in outcomes)
    assert (found[False], found[True]) == (wanted, left_out)
