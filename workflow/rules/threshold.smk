# Purpose: k* and everything the theory says, sealed before the sweep is measured.
# Inputs:  profile/N={n}/steps.parquet, termination.json
# Outputs: {cell}/threshold.json


rule threshold:
    input:
        sources=watched_files("threshold"),
        steps=rules.profile.output.steps,
        termination=rules.estimate.output,
    output:
        f"{CELL}/threshold.json",
    log:
        f"{LOGS}/threshold.log",
    priority: lambda wildcards: priority_of(wildcards.model, PREPARE)
    conda:
        ENVIRONMENT
    params:
        again=again("threshold"),
        options=lambda wildcards: json_param(
            n_slots=int(wildcards.n),
            per_completion=CONFIG.per_completion,
            kstar_table=CONFIG.kstar_table,
            max_num_batched_tokens=settings_of_model(
                wildcards.model
            ).engine.max_num_batched_tokens,
            seed=CONFIG.seed,
        ),
    message:
        "Compute k* of {wildcards.model} on {wildcards.dataset}, {wildcards.n} slots"
    shell:
        "python3 {input.sources[0]:q} --steps {input.steps:q} --termination {input.termination:q}"
        " --options {params.options:q} --output {output:q} {params.again} 2>&1 | tee {log:q}"
