# Purpose: N*, the slots that the KV memory holds; what is measured then has N* slots instead of
#          batch_size. Only with optimize_batch_size.
# Inputs:  what was found with batch_size slots: profile run.json, threshold.json, termination.json
# Outputs: {results}/{model}/kv_budget.json, {results}/{model}/{dataset}/slots.json


def at_batch_size(output):
    """These outputs, with batch_size slots."""
    return expand(output, n=CONFIG.batch_size, allow_missing=True)


checkpoint kv_budget:
    input:
        sources=watched_files("kv_budget"),
        profile=at_batch_size(rules.profile.output.run),
    output:
        f"{MODEL}/kv_budget.json",
    log:
        "logs/{model}/kv_budget.log",
    priority: lambda wildcards: priority_of(wildcards.model, PREPARE)
    localrule: True
    conda:
        ENVIRONMENT
    params:
        memory=lambda wildcards: memory_options(wildcards.model),
    message:
        "Compute the KV memory of {wildcards.model}"
    shell:
        "python3 {input.sources[0]:q} --profile {input.profile:q} --memory {params.memory:q}"
        " --output {output:q} 2>&1 | tee {log:q}"


checkpoint slots:
    input:
        sources=watched_files("slots"),
        budget=rules.kv_budget.output,
        threshold=at_batch_size(rules.threshold.output),
        termination=at_batch_size(rules.estimate.output),
    output:
        f"{MODEL}/{{dataset}}/slots.json",
    log:
        "logs/{model}/{dataset}/slots.log",
    priority: lambda wildcards: priority_of(wildcards.model, PREPARE)
    localrule: True
    conda:
        ENVIRONMENT
    params:
        oom_tolerance=CONFIG.oom_tolerance,
        num_requests=lambda wildcards: settings_of(wildcards.dataset).num_requests,
    message:
        "Compute N* of {wildcards.model} on {wildcards.dataset}"
    shell:
        "python3 {input.sources[0]:q} --budget {input.budget:q} --threshold {input.threshold:q}"
        " --termination {input.termination:q} --oom-tolerance {params.oom_tolerance}"
        " --num-requests {params.num_requests} --output {output:q} 2>&1 | tee {log:q}"
