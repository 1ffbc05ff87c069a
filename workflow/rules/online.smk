# Purpose: serve the requests with p estimated and k* looked up while they run.
# Inputs:  prompts.parquet, adaptive_policy.json (with the table p -> k*), termination/requests.parquet (lengths)
# Outputs: {cell}/online/requests.parquet, steps.parquet, kstar_history.parquet, run.json


rule online:
    input:
        sources=watched_files("online"),
        model=rules.model.output.manifest,
        prompts=rules.prompts.output.prompts,
        policy=rules.plan.output.policy,
        lengths=rules.termination.output.requests,
    output:
        requests=f"{CELL}/online/requests.parquet",
        steps=f"{CELL}/online/steps.parquet",
        history=f"{CELL}/online/kstar_history.parquet",
        run=f"{CELL}/online/run.json",
    log:
        f"{LOGS}/online.log",
    priority: lambda wildcards: priority_of(wildcards.model, ONLINE)
    conda:
        ENVIRONMENT
    threads: lambda wildcards: workflow.cores
    resources:
        engine=1,
        gpu=gpus_of,
    params:
        again=again("online"),
        engine=lambda wildcards: engine_options(
            wildcards.model, wildcards.n, swept=True
        ),
        sampling=SAMPLING,
        run=lambda wildcards: run_arguments(wildcards.dataset),
        options=lambda wildcards: json_param(
            drain=settings_of(wildcards.dataset).drain,
            max_hold_s=settings_of(wildcards.dataset).max_hold_s,
            update_interval=settings_of(wildcards.dataset).kstar_update_interval,
            estimator=settings_of(wildcards.dataset).online_p_estimator,
            smoothing=settings_of(wildcards.dataset).ema_alpha,
            window=settings_of(wildcards.dataset).online_p_window,
        ),
        folder=lambda wildcards, output: os.path.dirname(output.run),
    message:
        "Measure k* estimated online: {wildcards.model} on {wildcards.dataset}, {wildcards.n} slots"
    shell:
        "python3 {input.sources[0]:q} --model {input.model:q} --engine {params.engine:q} {params.again}"
        " --sampling {params.sampling:q} --prompts {input.prompts:q}"
        " --natural-lengths {input.lengths:q} {params.run} --policy {input.policy:q}"
        " --options {params.options:q} --output {params.folder:q} 2>&1 | tee {log:q}"
