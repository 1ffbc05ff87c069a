# Purpose: k* and everything the theory says, sealed before the sweep is measured.
# Inputs:  profile/N={n}/steps.parquet, termination.json, prompts.json
# Outputs: {cell}/threshold.json


checkpoint threshold:
    input:
        sources=sources("threshold"),
        steps=rules.profile.output.steps,
        termination=rules.termination.output.summary,
        model=rules.model.output.manifest,
    output:
        f"{CELL}/threshold.json",
    log:
        f"logs/{MODEL}/{{dataset}}/N={N_SLOTS}/threshold.log",
    conda:
        ENVIRONMENT
    params:
        options=lambda wildcards: options(
            n_slots=N_SLOTS,
            per_completion=CONFIG.per_completion,
            k_grid=settings_of(wildcards).k_grid,
            max_num_batched_tokens=CONFIG.engine.max_num_batched_tokens,
            seed=CONFIG.seed,
            memory=memory_options(),
        ),
    shell:
        "python3 {input.sources[0]} --steps {input.steps:q} --termination {input.termination:q}"
        " --model {input.model:q} --options {params.options:q} --output {output:q} 2>&1 | tee {log:q}"
