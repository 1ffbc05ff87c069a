# Purpose: describe the model; before that, convert one that a Python package carries.
# Inputs:  none in the workflow (a hub id, a folder, or an installed package)
# Outputs: {results}/{model}/model.json; {results}/{model}/checkpoint/ if it was converted


rule conversion:
    input:
        sources=watched_files("conversion"),
    output:
        checkpoint=directory(f"{MODEL}/checkpoint"),
    log:
        "logs/{model}/conversion.log",
    priority: lambda wildcards: priority_of(wildcards.model, PREPARE)
    conda:
        ENVIRONMENT
    threads: lambda wildcards: workflow.cores
    params:
        package=lambda wildcards: MODELS[wildcards.model].removeprefix(WHEEL_PREFIX),
        software=lambda wildcards, input: versions(
            MODELS[wildcards.model].removeprefix(WHEEL_PREFIX), *CONVERTING
        ),
    message:
        "Convert {wildcards.model}"
    shell:
        "python3 {input.sources[0]:q} --package {params.package:q} --output {output.checkpoint:q}"
        " 2>&1 | tee {log:q}"


rule model:
    input:
        sources=watched_files("model"),
        checkpoint=lambda wildcards: (
            rules.conversion.output.checkpoint.format(model=wildcards.model)
            if MODELS[wildcards.model].startswith(WHEEL_PREFIX)
            else []
        ),
        files=lambda wildcards: watchable(model_files(MODELS[wildcards.model])),
    output:
        manifest=f"{MODEL}/model.json",
    log:
        "logs/{model}/model.log",
    priority: lambda wildcards: priority_of(wildcards.model, PREPARE)
    conda:
        ENVIRONMENT
    params:
        model=lambda wildcards: MODELS[wildcards.model],
        source=lambda wildcards, input: (
            input.checkpoint
            or str(local_path(MODELS[wildcards.model]) or MODELS[wildcards.model])
        ),
        revision=lambda wildcards: revision_argument(wildcards.model),
        load_format=lambda wildcards: settings_of_model(
            wildcards.model
        ).engine.load_format,
        files=lambda wildcards: stamps(model_files(MODELS[wildcards.model])),
    message:
        "Describe {wildcards.model}"
    shell:
        "python3 {input.sources[0]:q} --model {params.model:q} --source {params.source:q}"
        " {params.revision} --load-format {params.load_format}"
        " --output {output.manifest:q} 2>&1 | tee {log:q}"
