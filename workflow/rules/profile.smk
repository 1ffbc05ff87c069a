# Purpose: measure step times on the engine and fit them. Two rules, so that another fit measures
#          nothing again.
# Inputs:  {results}/{model}/model.json
# Outputs: {results}/{model}/profile/N={n}/steps.parquet, run.json; fit.json


rule profile:
    input:
        sources=watched_files("step_times"),
        model=rules.model.output.manifest,
    output:
        steps=f"{MODEL}/profile/N={{n}}/steps.parquet",
        run=f"{MODEL}/profile/N={{n}}/run.json",
    log:
        "logs/{model}/profile/N={n}.log",
    priority: lambda wildcards: priority_of(wildcards.model, PROFILE)
    conda:
        ENVIRONMENT
    threads: lambda wildcards: workflow.cores
    resources:
        engine=1,
        gpu=gpus_of,
    params:
        again=again("profile"),
        engine=lambda wildcards: engine_options(wildcards.model, wildcards.n),
        options=json_param(
            num_prefill_samples=CONFIG.num_prefill_samples,
            num_decode_repeats=CONFIG.num_decode_repeats,
            max_tokens=CONFIG.profile_max_tokens,
            seed=CONFIG.seed,
        ),
    message:
        "Measure step times of {wildcards.model} with {wildcards.n} slots"
    shell:
        "python3 {input.sources[0]:q} --model {input.model:q} --engine {params.engine:q} {params.again}"
        " --options {params.options:q}"
        " --steps {output.steps:q} --run {output.run:q} 2>&1 | tee {log:q}"


rule fit:
    input:
        sources=watched_files("fit"),
        steps=rules.profile.output.steps,
    output:
        f"{MODEL}/profile/N={{n}}/fit.json",
    log:
        "logs/{model}/profile/N={n}-fit.log",
    localrule: True
    conda:
        ENVIRONMENT
    message:
        "Fit step times of {wildcards.model} with {wildcards.n} slots"
    shell:
        "python3 {input.sources[0]:q} --steps {input.steps:q} --n-slots {wildcards.n}"
        " --output {output:q} 2>&1 | tee {log:q}"
