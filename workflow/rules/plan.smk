# Purpose: the policy of the online run, with k*: all of the theory that measured jobs depend on, so that
#          editing it measures nothing again unless this comes out different. The thresholds of the
#          sweep follow from k*, N and the config.
# Inputs:  threshold.json
# Outputs: {cell}/adaptive_policy.json


checkpoint plan:
    input:
        sources=watched_files("plan"),
        threshold=rules.threshold.output,
    output:
        policy=f"{CELL}/adaptive_policy.json",
    log:
        f"{LOGS}/plan.log",
    priority: lambda wildcards: priority_of(wildcards.model, PREPARE)
    localrule: True
    conda:
        ENVIRONMENT
    params:
        too_large=lambda wildcards: [
            k
            for k in k_grid(settings_of(wildcards.dataset).k_grid, int(wildcards.n))
            if k > int(wildcards.n)
        ],
    message:
        "Plan the sweep of {wildcards.model} on {wildcards.dataset}, {wildcards.n} slots"
    shell:
        "python3 {input.sources[0]:q} --threshold {input.threshold:q} --too-large {params.too_large}"
        " --policy {output.policy:q} 2>&1 | tee {log:q}"
