"""What an edit of the config, the code or the files runs again: exact job lists of dry runs."""

import json
import os
import re
import subprocess
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from checkout import Checkout
from pdswitch.figures.catalogue import figures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BOTH = ("demo", "own")
REPEATS = {"demo": 2, "own": 1}
PROFILE = ("profile model=tiny", "fit model=tiny")


@pytest.fixture(scope="module")
def shared(finished_workflow, tmp_path_factory) -> Checkout:
    """A copy for tests that leave it as it was."""
    return finished_workflow.copy_to(tmp_path_factory.mktemp("reruns"))


@pytest.fixture
def copy(finished_workflow, tmp_path) -> Checkout:
    """A copy of the test's own."""
    return finished_workflow.copy_to(tmp_path)


def grid(checkout: Checkout, dataset: str) -> list[int]:
    """The thresholds whose runs lie there."""
    runs = (checkout.cell(dataset) / "throughput").glob("threshold=*")
    return sorted(int(run.name.partition("=")[2]) for run in runs)


def jobs(rules: str, *datasets: str, model: str = "tiny") -> list[str]:
    """The jobs of these rules for each dataset."""
    return [
        f"{rule} model={model}, dataset={dataset}" for dataset in datasets for rule in rules.split()
    ]


def runs(dataset: str, thresholds: list[int], reps: range | list[int]) -> list[str]:
    """The measured jobs of these thresholds, or of the mixed policy for 0."""
    return [
        f"throughput model=tiny, dataset={dataset}, k={k}, rep={rep}"
        if k
        else f"throughput_mixed model=tiny, dataset={dataset}, rep={rep}"
        for k in thresholds
        for rep in reps
    ]


def all_runs(checkout: Checkout, dataset: str) -> list[str]:
    """Every measured job of the sweep of a dataset."""
    reps = range(1, REPEATS[dataset] + 1)
    return runs(dataset, [0, *grid(checkout, dataset)], reps)


def fixed_runs(dataset: str) -> list[str]:
    """The measured jobs that the config alone names: those of the thresholds that it lists."""
    return runs(dataset, [0, 1, 4], range(1, REPEATS[dataset] + 1))


def add_slots(job: str, n_slots: int) -> str:
    """The job with N among its wildcards, which come in the order of its paths."""
    before, k, after = job.partition(", k=")
    before, rep, last = (before, "", "") if k else before.partition(", rep=")
    return f"{before}, n={n_slots}{k}{after}{rep}{last}"


def edit(checkout: Checkout, path: str) -> None:
    """Change a source file."""
    file = checkout.folder / path
    file.write_text(file.read_text() + "\n# edited\n")


def measured(checkout: Checkout) -> dict[Path, int]:
    """When each file that the engine's jobs write was written."""
    folders = ("throughput/*/*/*", "online/*", "termination/r*", "../../profile/*/[rs]*")
    return {
        file: file.stat().st_mtime_ns
        for dataset in BOTH
        for folder in folders
        for file in checkout.cell(dataset).glob(folder)
    }


def test_a_moved_checkout_has_nothing_to_do(shared):
    assert shared.planned_jobs("all", "datasets") == []


def test_neither_cores_nor_threads_nor_profile_matter(shared):
    (shared.folder / "other").mkdir()
    (shared.folder / "other/config.yaml").write_text(
        "resources: [engine=1]\nmax-checksum-file-size: 100000000\nprintshellcmds: true\n"
    )
    for arguments in (
        ["--cores", "1"],
        ["--set-threads", "throughput=1", "profile=2"],
        ["--workflow-profile", "other"],
    ):
        assert shared.planned_jobs(*arguments) == []


def test_how_long_an_engine_is_kept_matters_to_the_report_alone(shared):
    # It prints the config.
    limits = {"idle_timeout_s": 5, "start_timeout_s": 77, "run_timeout_s": 99}
    engine = json.dumps({"dtype": "float32", **limits})
    assert shared.planned_jobs("--config", f"engine={engine}") == ["report"]


def test_the_number_of_shards_matters_to_the_report_alone(shared):
    assert shared.planned_jobs("--config", "shards=2") == ["report"]


def test_the_store_matters_to_the_report_alone(shared):
    assert shared.planned_jobs("--config", "store_dir=elsewhere", "store_gb=0") == ["report"]


def test_one_dataset_s_option_reruns_its_chain_alone(copy):
    datasets = copy.config()["datasets"]
    copy.configure(datasets=datasets | {"own": datasets["own"] | {"shuffle": True}})
    chain = jobs("prompts termination estimate threshold plan online aggregate figures", "own")
    # Those of k* come on top, which the plan learns first.
    assert copy.planned_jobs() == sorted([*chain, *fixed_runs("own"), "summary", "report"])


def test_one_dataset_s_run_options_rerun_its_runs_alone(copy):
    datasets = copy.config()["datasets"]
    copy.configure(datasets=datasets | {"own": datasets["own"] | {"drain": "strict"}})
    again = jobs("online aggregate figures", "own") + all_runs(copy, "own")
    # vLLM's own policy knows no drain.
    again = [job for job in again if not job.startswith("throughput_mixed")]
    assert copy.planned_jobs() == sorted([*again, "summary", "report"])


def test_a_latency_guard_reruns_the_runs_that_have_one(copy):
    datasets = copy.config()["datasets"]
    copy.configure(datasets=datasets | {"own": datasets["own"] | {"max_hold_s": 2.0}})
    again = jobs("online aggregate figures", "own") + all_runs(copy, "own")
    again = [job for job in again if not job.startswith("throughput_mixed")]
    assert copy.planned_jobs() == sorted([*again, "summary", "report"])


def test_a_local_data_file_reruns_its_dataset_s_chain_alone(copy):
    file = copy.folder / "own.jsonl"
    file.write_text(file.read_text().replace("What", "How much"))
    chain = jobs("prompts termination estimate threshold plan online aggregate figures", "own")
    assert copy.planned_jobs() == sorted([*chain, *fixed_runs("own"), "summary", "report"])


def test_another_dataset_adds_its_jobs_alone(copy):
    copy.configure(datasets=copy.config()["datasets"] | {"new": {"kind": "demo", "seed": 5}})
    chain = jobs("prompts termination estimate threshold plan online aggregate figures", "new")
    fixed = runs("new", [0, 1, 4], [1, 2])
    assert copy.planned_jobs() == sorted([*chain, *fixed, "summary", "report"])
    said = copy.snakemake("-n").rstrip().splitlines()
    assert "Not listed for new: runs of thresholds that follow from k*" in said[-1]


def test_another_threshold_adds_its_runs_alone(copy):
    own = grid(copy, "demo")
    new = next(k for k in (2, 3) if k not in own)
    datasets = copy.config()["datasets"]
    copy.configure(datasets=datasets | {"demo": {"k_grid": [1, new, 4]}})
    again = runs("demo", [new], range(1, 3)) + jobs("aggregate figures", "demo")
    assert copy.planned_jobs() == sorted([*again, "summary", "report"])


def test_more_repeats_add_theirs_alone(copy):
    again = [
        *runs("demo", [0, *grid(copy, "demo")], [3]),
        *jobs("aggregate figures", "demo"),
    ]
    # The dataset with a number of its own keeps it.
    expected = sorted([*again, "summary", "report"])
    assert copy.planned_jobs("--config", "repeats=3") == expected


def test_another_estimator_measures_nothing_but_online(copy):
    # The adaptive policy starts from the estimate.
    planned = copy.planned_jobs("--config", "offline_p_estimator=censored")
    chain = jobs("estimate threshold plan online aggregate figures", *BOTH)
    assert planned == sorted([*chain, "summary", "report"])


def test_the_form_of_the_closed_form_measures_nothing_but_online(copy):
    # Another k* is another table for the adaptive policy.
    planned = copy.planned_jobs("--config", "per_completion=single_exit")
    chain = jobs("threshold plan online aggregate figures", *BOTH)
    assert planned == sorted([*chain, "summary", "report"])


def test_sampling_measures_everything_but_the_profile(shared):
    planned = shared.planned_jobs("--config", 'sampling={"top_k": 5}')
    chain = jobs("termination estimate threshold plan online aggregate figures", *BOTH)
    fixed = [run for dataset in BOTH for run in fixed_runs(dataset)]
    assert planned == sorted([*chain, *fixed, "summary", "report"])


def test_the_engine_s_options_measure_everything(shared):
    planned = shared.planned_jobs("--config", 'engine={"dtype": "float32", "seed": 1}')
    chain = jobs("termination estimate threshold plan online aggregate figures", *BOTH)
    fixed = [run for dataset in BOTH for run in fixed_runs(dataset)]
    assert planned == sorted([*chain, *PROFILE, *fixed, "summary", "report"])


def test_a_figure_s_code_redraws_that_figure_and_the_report(copy):
    edit(copy, "workflow/pdswitch/figures/hazard.py")
    assert copy.planned_jobs() == [*jobs("figures", *BOTH), "report"]
    rules = re.findall(r"^rule figure_(\w+):", copy.snakemake("-n"), re.MULTILINE)
    assert set(rules) == {"hazard"}


def test_the_figures_style_redraws_all_of_them_and_the_report(copy):
    edit(copy, "workflow/pdswitch/figures/style.py")
    assert copy.planned_jobs() == [*jobs("figures", *BOTH), "report"]
    rules = re.findall(r"^rule figure_(\w+):", copy.snakemake("-n"), re.MULTILINE)
    assert set(rules) == set(figures())


def test_the_report_s_code_rerenders_the_report(copy):
    edit(copy, "workflow/pdswitch/report/page.py")
    assert copy.planned_jobs() == ["report"]


def test_the_metrics_code_judges_again_and_measures_nothing(copy):
    edit(copy, "workflow/pdswitch/analysis/metrics.py")
    again = jobs("aggregate figures", *BOTH)
    assert copy.planned_jobs() == sorted([*again, "summary", "report"])


def test_the_fit_s_code_refits_and_measures_no_profile(copy):
    edit(copy, "workflow/pdswitch/profiling/fit.py")
    chain = jobs("threshold plan online aggregate figures", *BOTH)
    assert copy.planned_jobs() == sorted([*chain, "fit model=tiny", "summary", "report"])


@pytest.mark.rare
def test_the_theory_s_code_measures_nothing_unless_its_plan_changes(copy):
    edit(copy, "workflow/pdswitch/theory/closed_form.py")
    # Snakemake cannot know beforehand that the policy of the online run will stay as it is.
    chain = jobs("threshold plan online aggregate figures", *BOTH)
    assert copy.planned_jobs() == sorted([*chain, "summary", "report"])
    before = measured(copy)
    assert len(before) > 30
    copy.snakemake()
    assert measured(copy) == before
    assert copy.planned_jobs() == []
    results = json.loads((copy.cell("demo") / "demo_results.json").read_text())
    assert not results["prediction"]["sealed"]


@pytest.mark.rare
def test_the_scheduler_s_code_measures_everything_again(copy):
    edit(copy, "workflow/pdswitch/plugin/scheduler.py")
    chain = jobs("termination estimate threshold plan online aggregate figures", *BOTH)
    fixed = [run for dataset in BOTH for run in fixed_runs(dataset)]
    assert copy.planned_jobs() == sorted([*chain, *PROFILE, *fixed, "summary", "report"])
    # Which runs there are is known once they are planned anew; the fit is for the reader alone,
    # thresholds come from the steps themselves.
    copy.snakemake("--until", "plan", "fit")
    again = jobs("online aggregate figures", *BOTH)
    again += [run for dataset in BOTH for run in all_runs(copy, dataset)]
    assert copy.planned_jobs() == sorted([*again, "summary", "report"])


def test_an_edit_can_be_declared_harmless(copy):
    edit(copy, "workflow/pdswitch/plugin/scheduler.py")
    copy.snakemake("--touch")
    assert copy.planned() == {}
    # The config still decides.
    assert copy.planned("--config", "drain=strict")["throughput"] > 0


def test_touching_every_file_reruns_nothing(copy):
    for path in copy.folder.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts and "results" not in path.parts:
            os.utime(path)
    assert copy.planned_jobs() == []


def test_a_stash_and_back_reruns_nothing(copy):
    def git(*arguments: str) -> None:
        author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *author, *arguments], cwd=copy.folder, check=True)

    git("init", "--quiet")
    (copy.folder / ".gitignore").write_text("results\nlogs\n.snakemake\n")
    git("add", ".")
    git("commit", "--quiet", "--message=all")
    edit(copy, "workflow/pdswitch/plugin/scheduler.py")
    edit(copy, "workflow/pdswitch/plugin/record.py")
    git("stash", "--quiet")
    assert copy.planned_jobs() == []
    git("stash", "pop", "--quiet")
    assert copy.planned_jobs() != []
    git("stash", "--quiet")
    assert copy.planned_jobs() == []


def test_other_slots_lie_beside(copy):
    planned = copy.planned_jobs("--config", "batch_size=3", "k_grid=[1]")
    chain = jobs("termination estimate threshold plan online aggregate figures", *BOTH)
    fixed = [
        run for dataset in BOTH for run in runs(dataset, [0, 1], range(1, REPEATS[dataset] + 1))
    ]
    beside = [add_slots(job, 3) for job in (*chain, *PROFILE, *fixed)]
    assert planned == sorted([*beside, "summary", "report"])
    assert all(str(file.parent).count("N=3") == 0 for file in measured(copy))
    # The old ones are still those of the old config; only what spans all cells was another's.
    assert copy.planned_jobs() == []


def test_another_model_lies_beside(copy):
    first = copy.config()["model"]
    planned = copy.planned_jobs("--config", f"models=[{first}, somebody/other]")
    chain = "prompts termination estimate threshold plan online aggregate figures"
    other = jobs(chain, *BOTH, model="somebody--other")
    other += [
        run.replace("model=tiny", "model=somebody--other")
        for dataset in BOTH
        for run in fixed_runs(dataset)
    ]
    alone = [f"{rule} model=somebody--other" for rule in ("model", "profile", "fit")]
    assert planned == sorted([*other, *alone, "summary", "report"])


def test_one_model_s_engine_option_reruns_its_measurements_alone(copy):
    model = copy.config()["model"]
    both = {model: {"engine": {"seed": 1}}, "somebody/other": {}}
    planned = copy.planned_jobs("--config", f"models={json.dumps(both)}")
    own = {job for job in planned if "model=tiny" in job}
    chain = jobs("termination estimate threshold plan online aggregate figures", *BOTH)
    assert own == {*chain, *PROFILE, *fixed_runs("demo"), *fixed_runs("own")}


@pytest.mark.rare
def test_a_run_that_was_whole_when_the_workflow_was_killed_is_not_planned_for_ever(copy):
    # Snakemake's mark of a job that it has started and not seen end.
    output = Path("results/tiny/own/N=4/throughput/policy=mixed/rep=1/run.json")
    name = urlsafe_b64encode(str(output).encode()).decode()
    mark = copy.folder / ".snakemake/incomplete" / name
    mark.write_text('{"external_jobid": null}')
    results = copy.cell("own") / "own_results.json"
    results.unlink()
    target = str(results.relative_to(copy.folder))
    assert runs("own", [0], [1])[0] in copy.planned_jobs(target)
    copy.snakemake(target)
    assert copy.planned_jobs(target) == []
    assert not mark.exists()
