# After how many finished requests should a server stop decoding and prefill? This workflow computes
# the closed form k*, measures the optimum on vLLM, and says what trusting k* costs.
#
#   snakemake --cores all                 everything that the config asks for
#   snakemake --cores all datasets        only the datasets
#   snakemake --cores all thresholds      up to k*, without measuring the sweep
#   snakemake --cores all figures         without the report

from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")


# The working folder's own config, if it has one; else the one beside this file.
CONFIG_FILE = Path("config/config.yaml")
if not CONFIG_FILE.is_file():
    CONFIG_FILE = Path(str(workflow.current_basedir)) / CONFIG_FILE


configfile: str(CONFIG_FILE)


include: "workflow/rules/config.smk"
include: "workflow/rules/forced.smk"
include: "workflow/rules/names.smk"
include: "workflow/rules/settings.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/captions.smk"
include: "workflow/rules/cache.smk"
include: "workflow/rules/order.smk"
include: "workflow/rules/cluster.smk"
include: "workflow/rules/model.smk"
include: "workflow/rules/prompts.smk"
include: "workflow/rules/profile.smk"
include: "workflow/rules/termination.smk"
include: "workflow/rules/threshold.smk"
include: "workflow/rules/slots.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/online.smk"
include: "workflow/rules/throughput.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/messages.smk"


# Snakemake makes up for a deleted file only if somebody asks for it: so for every run, result and
# figure, not for the report alone.
rule all:
    default_target: True
    input:
        rules.report.output,
        rules.summary.output,
        every_cell(rules.aggregate.output.results, *FIGURES),
        runs=lambda wildcards: [
            run
            for model in MODELS
            for dataset in DATASETS
            for run in runs_of(model, dataset, slots_of(model, dataset))
        ],
    message:
        "Everything is done"


rule datasets:
    input:
        rules.datasets_table.output,
    message:
        "All datasets are ready"


rule thresholds:
    input:
        every_cell(*rules.threshold.output),
    message:
        "All k* are computed"


rule figures:
    input:
        every_cell(*FIGURES),
    message:
        "All figures are drawn"


# A workflow that uses this one as a module calls them as pdswitch.onstart() and so on.
onstart:
    from pdswitch.stages.store import use_results

    forced()
    use_results(Path(STORE), Path(RESULTS))


# Snakemake looks for interrupted jobs before it knows those behind a checkpoint: such a job's mark
# stays, and a dry run would plan it for ever. After a whole workflow every job's files are whole.
onsuccess:
    for job in workflow.dag.jobs:
        if workflow.async_run(workflow.persistence.incomplete(job)):
            workflow.persistence.cleanup(job)


onerror:
    say_at_exit(why_it_stopped())


# A mistake in its input stops a stage the second time too. A job of the sweep is worth another try
# where the profile asks for one (`retries`): engine and data have proven good by then, and what
# stops it is a time limit or a lost node. An engine that dies is replaced within the job.
for stage in workflow.modifier.rules:
    if stage.name not in map(own_rule, ("throughput", "throughput_mixed")):
        stage.restart_times = 0

if workflow.workflow_settings.cache is not None:
    refuse_stale_results(workflow.workflow_settings.cache)
