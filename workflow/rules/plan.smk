# Purpose: what is measured: the thresholds of the sweep, and the policy of the online run. All of the
#          theory that measured jobs depend on, so that editing it measures nothing again unless one
#          of the two comes out different.
# Inputs:  threshold.json
# Outputs: {cell}/k_grid.json, {cell}/adaptive_policy.json


checkpoint plan:
    input:
        sources=sources("plan"),
        threshold=rules.threshold.output,
    output:
        grid=f"{CELL}/k_grid.json",
        policy=f"{CELL}/adaptive_policy.json",
    log:
        f"{LOGS}/plan.log",
    priority: lambda wildcards: priority_of(wildcards.model, PREPARE)
    conda:
        ENVIRONMENT
    params:
        k_grid=lambda wildcards: json.dumps(settings_of(wildcards.dataset).k_grid),
    shell:
        "python3 {input.sources[0]} --threshold {input.threshold:q} --k-grid {params.k_grid:q}"
        " --grid {output.grid:q} --policy {output.policy:q} 2>&1 | tee {log:q}"
