"""The table and the histograms over all datasets."""

import json
import os
import re
import runpy
import subprocess
import sys

import pandas as pd
import pytest

from pdswitch.datasets.encoding import Encoder
from pdswitch.datasets.loading import load
from pdswitch.datasets.options import dataset_options
from pdswitch.datasets.prompts import limits_of, write_prompts
from pdswitch.figures.datasets_overview import draw
from pdswitch.files import write_json
from tokenizer_fixture import make_tokenizer

NAMES = ("demo", "chats [a]", "few")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder of three datasets as the prompts stage leaves them."""
    folder = tmp_path_factory.mktemp("results")
    few = folder / "few.jsonl"
    few.write_text("".join(json.dumps({"prompt": f"Count to {n}"}) + "\n" for n in range(3)))
    own = {"kind": "custom", "custom_prompts": str(few)}
    encoder = Encoder(make_tokenizer())
    for name, values in {
        "demo": {"num_requests": 40, "max_input_tokens": 150},
        "chats [a]": {"kind": "synthetic", "num_requests": 30},
        "few": own | {"num_requests": 7, "reuse_requests": True},
    }.items():
        options = dataset_options(name, values)
        found = write_prompts(
            folder / name / "prompts.parquet",
            load(options)[0],
            encoder,
            limits_of(options, None, 10),
        )
        write_json(
            folder / name / "prompts.json",
            {"dataset": name, "options": options.model_dump(mode="json"), **found},
        )
    return folder


def test_table_and_figure(root, monkeypatch, capsys, results, tmp_path):
    manifests = [str(results / name / "prompts.json") for name in NAMES]
    script = str(root / "workflow/scripts/datasets_table.py")
    outputs = ["--table", str(tmp_path / "t.csv"), "--figure", str(tmp_path / "lengths")]
    monkeypatch.setattr(sys, "argv", [script, *manifests, *outputs])
    runpy.run_path(script, run_name="__main__")

    table = pd.read_csv(tmp_path / "t.csv").set_index("dataset")
    assert list(table.index) == list(NAMES)
    assert list(table["requests"]) == [40, 30, 7]
    assert list(table["reused"]) == [0, 0, 4]
    assert table.loc["demo", "skipped"] > 0
    assert table.loc[["demo"], "output_mean"].isna().all()
    prompts = pd.read_parquet(results / "chats [a]/prompts.parquet")
    assert table.loc["chats [a]", "output_mean"] == prompts["reference_output_tokens"].mean()
    assert table.loc["chats [a]", "input_max"] == prompts["prompt_tokens"].max()

    printed = capsys.readouterr().out
    rows = {line.split("  ")[0].strip(): line for line in printed.splitlines()}
    assert " 40 " in rows["demo"]
    assert "–" in rows["demo"]
    assert " 30 " in rows["chats [a] (synthetic)"]
    assert "few: 4 requests are others used again; 3 differ" in printed
    assert "skipped: longer than max_input_tokens" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "lengths.pdf", "lengths.png"}
    assert (tmp_path / "lengths.png").stat().st_size > 5000


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "iso-8859-9"])
def test_a_terminal_without_the_dash_gets_a_table_too(root, results, tmp_path, encoding):
    manifests = [results / name / "prompts.json" for name in NAMES]
    script = root / "workflow/scripts/datasets_table.py"
    outputs = ["--table", tmp_path / "t.csv", "--figure", tmp_path / "lengths"]
    run = subprocess.run(
        [sys.executable, script, *manifests, *outputs],
        env=os.environ | {"PYTHONPATH": str(root / "workflow"), "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    (demo,) = re.findall(r"^\W*demo .* - .*$", run.stdout.decode(encoding), re.MULTILINE)
    assert demo.count(" - ") == 5
    assert run.stderr == b""


def test_the_histograms_hold_every_request(results):
    frames = {
        name: pd.read_parquet(results / name / "prompts.parquet") for name in ("demo", "chats [a]")
    }
    figure = draw(frames)
    counted = [sum(bar.get_height() for bar in axes.patches) for axes in figure.axes]
    assert counted == [40, 0, 30, 30]
    assert "not known" in [text.get_text() for text in figure.axes[1].texts]
    with pytest.raises(ValueError, match="no datasets to draw; give the manifest"):
        draw({})
