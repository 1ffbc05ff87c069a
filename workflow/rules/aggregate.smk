# Purpose: judge every run and sum up each dataset, then all of them.
# Inputs:  run.json (and the records beside it) of every run, threshold.json, termination.json
# Outputs: {cell}/{dataset}_results.json, runs.parquet, truncated_samples_{dataset}.json,
#          pd_timeline_{dataset}.json; {results}/runs.parquet, summary.csv


rule aggregate:
    input:
        sources=watched_files("aggregate"),
        runs=lambda wildcards: runs_of(**wildcards),
        announced=lambda wildcards: runs_before_the_plan(**wildcards),
        online=rules.online.output.run,
        threshold=rules.threshold.output,
        termination=rules.estimate.output,
        requests=rules.termination.output.requests,
        prompts=rules.prompts.output.prompts,
        slots=rules.slots.output if CONFIG.optimize_batch_size else [],
    output:
        results=f"{CELL}/{{dataset}}_results.json",
        table=f"{CELL}/runs.parquet",
        truncated=f"{CELL}/truncated_samples_{{dataset}}.json",
        timeline=f"{CELL}/pd_timeline_{{dataset}}.json",
    log:
        f"{LOGS}/aggregate.log",
    conda:
        ENVIRONMENT
    params:
        settings=lambda wildcards: json_param(
            model=wildcards.model,
            tensor_parallel_size=settings_of_model(
                wildcards.model
            ).tensor_parallel_size,
            num_requests=settings_of(wildcards.dataset).num_requests,
            repeats=settings_of(wildcards.dataset).repeats,
            lengths=settings_of(wildcards.dataset).lengths,
            exclude_degenerate_throughput=settings_of(
                wildcards.dataset
            ).exclude_degenerate_throughput,
        ),
    message:
        "Sum up {wildcards.model} on {wildcards.dataset}, {wildcards.n} slots"
    shell:
        "python3 {input.sources[0]:q} --dataset {wildcards.dataset:q} --settings {params.settings:q}"
        " --prompts {input.prompts:q} --termination {input.termination:q}"
        " --requests {input.requests:q} --threshold {input.threshold:q} --online {input.online:q}"
        " --runs {input.runs:q} --slots {input.slots:q} --results {output.results:q} --table {output.table:q}"
        " --truncated {output.truncated:q} --timeline {output.timeline:q} 2>&1 | tee {log:q}"


rule summary:
    input:
        sources=watched_files("summary"),
        results=every_cell(rules.aggregate.output.results),
        tables=every_cell(rules.aggregate.output.table),
    output:
        runs=f"{RESULTS}/runs.parquet",
        summary=f"{RESULTS}/summary.csv",
    log:
        "logs/summary.log",
    localrule: True
    conda:
        ENVIRONMENT
    message:
        "Sum up all datasets"
    shell:
        "python3 {input.sources[0]:q} --results {input.results:q} --tables {input.tables:q}"
        " --runs {output.runs:q} --summary {output.summary:q} 2>&1 | tee {log:q}"
