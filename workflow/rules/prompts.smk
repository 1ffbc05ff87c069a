# Purpose: turn a dataset into requests: text, chat template, token ids.
# Inputs:  {results}/{model}/model.json, the dataset's own source
# Outputs: {results}/{model}/{dataset}/prompts.parquet, prompts.json (manifest);
#          {results}/datasets.csv, datasets.png, datasets.pdf: all datasets side by side


rule prompts:
    input:
        sources=lambda wildcards: watched_files("prompts", loader_of(wildcards.dataset)),
        model=rules.model.output.manifest,
        data=lambda wildcards: watchable(local_data(wildcards.dataset)),
    output:
        prompts=f"{MODEL}/{{dataset}}/prompts.parquet",
        manifest=f"{MODEL}/{{dataset}}/prompts.json",
    log:
        "logs/{model}/{dataset}/prompts.log",
    priority: lambda wildcards: priority_of(wildcards.model, PREPARE)
    conda:
        ENVIRONMENT
    params:
        software=lambda wildcards, input: versions(*TOKENIZING),
        data=lambda wildcards: stamps(local_data(wildcards.dataset)),
        dataset=lambda wildcards: wildcards.dataset,
        options=lambda wildcards: json_param(**CONFIG.dataset_source(wildcards.dataset)),
        max_model_len=lambda wildcards: max_model_len_argument(wildcards.model),
        max_output_tokens=lambda wildcards: settings_of(
            wildcards.dataset
        ).max_output_tokens,
    message:
        "Prepare the prompts of {wildcards.dataset} for {wildcards.model}"
    shell:
        "python3 {input.sources[0]:q} --dataset {params.dataset:q} --options {params.options:q}"
        " --model {input.model:q} {params.max_model_len}"
        " --max-output-tokens {params.max_output_tokens}"
        " --output {output.prompts:q} --manifest {output.manifest:q} 2>&1 | tee {log:q}"


rule datasets_table:
    input:
        sources=watched_files("datasets_table"),
        manifests=every_cell(rules.prompts.output.manifest),
        prompts=every_cell(rules.prompts.output.prompts),
    output:
        table=f"{RESULTS}/datasets.csv",
        png=f"{RESULTS}/datasets.png",
        pdf=f"{RESULTS}/datasets.pdf",
    log:
        "logs/datasets_table.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        stem=lambda wildcards, output: os.path.splitext(output.png)[0],
        labels=[
            dataset if len(MODELS) == 1 else f"{dataset}, {model}"
            for model in MODELS
            for dataset in DATASETS
        ],
    message:
        "Draw all datasets side by side"
    shell:
        "python3 {input.sources[0]:q} {input.manifests:q} --labels {params.labels:q} --table {output.table:q}"
        " --figure {params.stem:q} 2>&1 | tee {log:q}"
