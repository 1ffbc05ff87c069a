# Purpose: describe the model; convert one that a Python package carries.
# Inputs:  none in the workflow (a hub id, a folder, or an installed package)
# Outputs: {results}/{model}/model.json, {results}/{model}/checkpoint/ (empty unless converted)


rule model:
    input:
        sources=sources("model"),
    output:
        manifest=f"{RESULTS}/{MODEL}/model.json",
        checkpoint=directory(f"{RESULTS}/{MODEL}/checkpoint"),
    log:
        f"logs/{MODEL}/model.log",
    conda:
        ENVIRONMENT
    threads: workflow.cores
    params:
        model=CONFIG.model,
        revision=(
            f"--revision {CONFIG.engine.revision}" if CONFIG.engine.revision else ""
        ),
    shell:
        "python3 {input.sources[0]} --model {params.model:q} {params.revision}"
        " --checkpoint {output.checkpoint:q} --output {output.manifest:q} 2>&1 | tee {log:q}"
