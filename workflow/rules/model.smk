# Purpose: describe the model; convert one that a Python package carries.
# Inputs:  none in the workflow (a hub id, a folder, or an installed package)
# Outputs: {results}/{model}/model.json, {results}/{model}/checkpoint/ (empty unless converted)


rule model:
    input:
        sources=sources("model"),
    output:
        manifest=f"{MODEL}/model.json",
        checkpoint=directory(f"{MODEL}/checkpoint"),
    log:
        "logs/{model}/model.log",
    priority: lambda wildcards: priority_of(wildcards.model, PREPARE)
    conda:
        ENVIRONMENT
    threads: workflow.cores
    params:
        model=lambda wildcards: MODELS[wildcards.model],
        revision=lambda wildcards: revision_argument(wildcards.model),
    shell:
        "python3 {input.sources[0]} --model {params.model:q} {params.revision}"
        " --checkpoint {output.checkpoint:q} --output {output.manifest:q} 2>&1 | tee {log:q}"
