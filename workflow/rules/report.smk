# Purpose: the figures, and one page over everything.
# Inputs:  what each figure shows; {dataset}_results.json
# Outputs: {cell}/{dataset}_{figure}.pdf, .png; {results}/report.html

FIGURE_INPUTS = {
    "throughput_vs_k": [rules.aggregate.output.results],
    "profiling_results": [rules.profile.output.steps, f"{CELL}/threshold.json"],
    "input_length_distribution": [rules.prompts.output.prompts],
    "output_length_distribution": [
        rules.termination.output.requests,
        rules.termination.output.summary,
    ],
    "online_kstar_convergence": [rules.online.output.history, f"{CELL}/threshold.json"],
    "timeline": [rules.aggregate.output.timeline],
    "hazard": [rules.termination.output.summary],
}


rule figure:
    input:
        sources=sources("figure"),
        data=lambda wildcards: [
            path.format(dataset=wildcards.dataset)
            for path in FIGURE_INPUTS[wildcards.figure]
        ],
    output:
        pdf=report(
            f"{CELL}/{{dataset}}_{{figure}}.pdf",
            caption="../report/figure.rst",
            category="{dataset}",
            labels={"figure": "{figure}"},
        ),
        png=f"{CELL}/{{dataset}}_{{figure}}.png",
    log:
        f"logs/{MODEL}/{{dataset}}/N={N_SLOTS}/figure-{{figure}}.log",
    wildcard_constraints:
        figure="|".join(FIGURE_INPUTS),
    conda:
        ENVIRONMENT
    params:
        stem=lambda wildcards, output: os.path.splitext(output.png)[0],
    shell:
        "python3 {input.sources[0]} {wildcards.figure} --dataset {wildcards.dataset:q}"
        " --inputs {input.data:q} --output-stem {params.stem:q} 2>&1 | tee {log:q}"


rule report:
    input:
        sources=sources("report"),
        template="workflow/report/report.html.j2",
        results=expand(rules.aggregate.output.results, dataset=DATASETS),
        figures=expand(rules.figure.output.png, dataset=DATASETS, figure=FIGURE_INPUTS),
        pdfs=expand(rules.figure.output.pdf, dataset=DATASETS, figure=FIGURE_INPUTS),
    output:
        f"{RESULTS}/report.html",
    log:
        f"logs/{MODEL}/report.log",
    conda:
        ENVIRONMENT
    params:
        config=CONFIG.model_dump_json(indent=2),
    shell:
        "python3 {input.sources[0]} --template {input.template:q} --results {input.results:q}"
        " --config {params.config:q} --output {output:q} 2>&1 | tee {log:q}"
