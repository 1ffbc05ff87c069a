# Purpose: serve every request once, ending by itself; estimate p offline. Two rules, so that
#          another estimator measures nothing again.
# Inputs:  prompts.parquet, model.json
# Outputs: {cell}/termination/requests.parquet, run.json; termination.json
# ({cell} is {results}/{model}/{dataset}/N={n})

from pdswitch.estimation.catalogue import estimator_modules


rule termination:
    input:
        sources=watched_files("termination"),
        model=rules.model.output.manifest,
        prompts=rules.prompts.output.prompts,
        manifest=rules.prompts.output.manifest,
    output:
        requests=f"{CELL}/termination/requests.parquet",
        run=f"{CELL}/termination/run.json",
    log:
        f"{LOGS}/termination.log",
    priority: lambda wildcards: priority_of(wildcards.model, PROFILE)
    conda:
        ENVIRONMENT
    threads: lambda wildcards: workflow.cores
    resources:
        engine=1,
        gpu=gpus_of,
    params:
        again=again("termination"),
        engine=lambda wildcards: engine_options(wildcards.model, wildcards.n),
        sampling=SAMPLING,
        max_output_tokens=lambda wildcards: settings_of(
            wildcards.dataset
        ).max_output_tokens,
        lengths=lambda wildcards: settings_of(wildcards.dataset).lengths,
    message:
        "Measure answer lengths of {wildcards.model} on {wildcards.dataset}, {wildcards.n} slots"
    shell:
        "python3 {input.sources[0]:q} --model {input.model:q} --engine {params.engine:q} {params.again}"
        " --sampling {params.sampling:q} --prompts {input.prompts:q}"
        " --lengths {params.lengths}"
        " --max-output-tokens {params.max_output_tokens}"
        " --requests {output.requests:q} --run {output.run:q} 2>&1 | tee {log:q}"


rule estimate:
    input:
        sources=watched_files("estimate", *estimator_modules()),
        requests=rules.termination.output.requests,
    output:
        f"{CELL}/termination/termination.json",
    log:
        f"{LOGS}/estimate.log",
    priority: lambda wildcards: priority_of(wildcards.model, PREPARE)
    localrule: True
    conda:
        ENVIRONMENT
    params:
        n_offline=lambda wildcards: settings_of(wildcards.dataset).n_offline,
        estimator=lambda wildcards: settings_of(wildcards.dataset).offline_p_estimator,
        ema_alpha=lambda wildcards: settings_of(wildcards.dataset).ema_alpha,
    message:
        "Estimate p of {wildcards.model} on {wildcards.dataset}, {wildcards.n} slots"
    shell:
        "python3 {input.sources[0]:q} --requests {input.requests:q}"
        " --n-offline {params.n_offline} --estimator {params.estimator}"
        " --ema-alpha {params.ema_alpha} --output {output:q} 2>&1 | tee {log:q}"
