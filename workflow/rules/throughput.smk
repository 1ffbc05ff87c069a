# Purpose: measure the throughput of one threshold k, or of vLLM's own mixed policy, once.
# Inputs:  prompts.parquet, termination/requests.parquet (lengths); the value of k, and nothing else
#          of the theory, so that editing it invalidates no measurement
# Outputs: {cell}/throughput/threshold={k}/rep={rep}/requests.parquet, steps.parquet, run.json
#          {cell}/throughput/policy=mixed/rep={rep}/ the same


rule throughput:
    input:
        sources=watched_files("throughput"),
        model=rules.model.output.manifest,
        prompts=rules.prompts.output.prompts,
        lengths=rules.termination.output.requests,
    output:
        requests=f"{CELL}/throughput/threshold={{k}}/rep={{rep}}/requests.parquet",
        steps=f"{CELL}/throughput/threshold={{k}}/rep={{rep}}/steps.parquet",
        run=f"{CELL}/throughput/threshold={{k}}/rep={{rep}}/run.json",
    log:
        f"{LOGS}/threshold={{k}}-rep={{rep}}.log",
    priority: lambda wildcards: block_priority(wildcards.model, wildcards.rep, wildcards.k)
    group:
        shard_of
    conda:
        ENVIRONMENT
    threads: lambda wildcards: workflow.cores
    resources:
        engine=1,
        gpu=gpus_of,
    params:
        again=again("throughput"),
        engine=lambda wildcards: engine_options(
            wildcards.model, wildcards.n, swept=True
        ),
        sampling=SAMPLING,
        run=lambda wildcards: run_arguments(wildcards.dataset),
        policy=lambda wildcards: fixed_policy(wildcards),
        folder=lambda wildcards, output: os.path.dirname(output.run),
    message:
        "Measure k = {wildcards.k}, block {wildcards.rep}: {wildcards.model} on {wildcards.dataset}, {wildcards.n} slots"
    shell:
        "python3 {input.sources[0]:q} --model {input.model:q} --engine {params.engine:q} {params.again}"
        " --sampling {params.sampling:q} --prompts {input.prompts:q}"
        " --natural-lengths {input.lengths:q} {params.run} {params.policy}"
        " --rep {wildcards.rep} --output {params.folder:q} 2>&1 | tee {log:q}"


use rule throughput as throughput_mixed with:
    output:
        requests=f"{CELL}/throughput/policy=mixed/rep={{rep}}/requests.parquet",
        steps=f"{CELL}/throughput/policy=mixed/rep={{rep}}/steps.parquet",
        run=f"{CELL}/throughput/policy=mixed/rep={{rep}}/run.json",
    log:
        f"{LOGS}/policy=mixed-rep={{rep}}.log",
    priority: lambda wildcards: block_priority(wildcards.model, wildcards.rep, 0)
    params:
        again=again("throughput_mixed"),
        engine=lambda wildcards: engine_options(
            wildcards.model, wildcards.n, swept=True
        ),
        sampling=SAMPLING,
        run=lambda wildcards: run_arguments(wildcards.dataset),
        policy="",
        folder=lambda wildcards, output: os.path.dirname(output.run),
    message:
        "Measure vLLM's own policy, block {wildcards.rep}: {wildcards.model} on {wildcards.dataset}, {wildcards.n} slots"
