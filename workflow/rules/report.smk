# Purpose: the figures, and one page over everything.
# Inputs:  what each figure shows; {dataset}_results.json
# Outputs: {cell}/{dataset}_{figure}.pdf, .png; {results}/report.html

FIGURE_INPUTS = {
    "throughput_vs_k": [rules.aggregate.output.results],
    "profiling_results": [rules.profile.output.steps, rules.threshold.output],
    "input_length_distribution": [rules.prompts.output.prompts],
    "output_length_distribution": [
        rules.termination.output.requests,
        rules.estimate.output,
    ],
    "online_kstar_convergence": [rules.aggregate.output.results],
    "timeline": [rules.aggregate.output.timeline],
    "hazard": [rules.estimate.output],
}
FIGURES = [
    f"{CELL}/{{dataset}}_{figure}.{ending}"
    for figure in FIGURE_INPUTS
    for ending in ("pdf", "png")
]


# One rule a figure: only so can each have its own caption.
for figure, figure_inputs in FIGURE_INPUTS.items():

    rule:
        name:
            f"figure_{figure}"
        input:
            sources=watched_files("figure", f"pdswitch.figures.{figure}"),
            data=figure_inputs,
        output:
            pdf=report(
                f"{CELL}/{{dataset}}_{figure}.pdf",
                caption=f"../report/{figure}.rst",
                category="{model}",
                subcategory="{dataset}",
                labels={"figure": figure.replace("_", " ")},
            ),
            png=f"{CELL}/{{dataset}}_{figure}.png",
        log:
            f"{LOGS}/figure-{figure}.log",
        localrule: True
        conda:
            ENVIRONMENT
        params:
            name=figure,
            stem=lambda wildcards, output: os.path.splitext(output.png)[0],
            settings=lambda wildcards: caption_settings(wildcards.dataset),
        message:
            "Draw "
            + figure.replace("_", " ")
            + ": {wildcards.model} on {wildcards.dataset}, {wildcards.n} slots"
        shell:
            "python3 {input.sources[0]:q} {params.name} --dataset {wildcards.dataset:q}"
            " --inputs {input.data:q} --output-stem {params.stem:q} 2>&1 | tee {log:q}"


rule report:
    input:
        sources=watched_files("report"),
        template=of_checkout("workflow/report/report.html.j2"),
        results=every_cell(rules.aggregate.output.results),
        # Named with their digests, as what the results rest on.
        inputs=every_cell(
            rules.model.output.manifest,
            *rules.fit.output,
            rules.prompts.output.manifest,
            *rules.estimate.output,
            *rules.threshold.output,
        ),
        figures=every_cell(*FIGURES),
    output:
        f"{RESULTS}/report.html",
    log:
        "logs/report.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        # A function: in a text alone Snakemake would look for wildcards.
        config=lambda wildcards: CONFIG.model_dump_json(indent=2),
    message:
        "Write the report"
    shell:
        "python3 {input.sources[0]:q} --template {input.template:q} --results {input.results:q}"
        " --config {params.config:q} --output {output:q} 2>&1 | tee {log:q}"
