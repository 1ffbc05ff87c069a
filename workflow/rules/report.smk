# Purpose: the figures, and one page over everything.
# Inputs:  what each figure is drawn from (pdswitch.figures.catalogue); {dataset}_results.json
# Outputs: {cell}/{dataset}_{figure}.pdf, .png; {results}/report.html

FIGURES = [
    f"{CELL}/{{dataset}}_{figure}.{ending}"
    for figure in FIGURE_CATALOGUE
    for ending in ("pdf", "png")
]
FIGURE_MODULES = [figure.module for figure in FIGURE_CATALOGUE.values()]


# One rule a figure: only so can each have its own caption.
for figure in FIGURE_CATALOGUE.values():

    rule:
        name:
            f"figure_{figure.name}"
        input:
            sources=watched_files("figure", figure.module),
            data=[result_file(name) for name in figure.inputs],
        output:
            pdf=report(
                f"{CELL}/{{dataset}}_{figure.name}.pdf",
                caption="../report/figure.rst",
                category="{model}",
                subcategory="{dataset}",
                labels={"figure": figure.name.replace("_", " ")},
            ),
            png=f"{CELL}/{{dataset}}_{figure.name}.png",
        log:
            f"{LOGS}/figure-{figure.name}.log",
        localrule: True
        conda:
            ENVIRONMENT
        params:
            name=figure.name,
            stem=lambda wildcards, output: os.path.splitext(output.png)[0],
            # A function of the input: it redraws nothing.
            caption=lambda wildcards, input, figure=figure: Caption(figure, wildcards),
        message:
            "Draw "
            + figure.name.replace("_", " ")
            + ": {wildcards.model} on {wildcards.dataset}, {wildcards.n} slots"
        shell:
            "python3 {input.sources[0]:q} {params.name} --dataset {wildcards.dataset:q}"
            " --inputs {input.data:q} --output-stem {params.stem:q} 2>&1 | tee {log:q}"


rule report:
    input:
        sources=watched_files("report", *FIGURE_MODULES),
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
