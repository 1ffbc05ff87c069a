# Purpose: what a cluster is asked for: GPUs, and one job for every shard of a sweep.


def gpus_of(wildcards):
    """The GPUs that a measured job asks a cluster for."""
    settings = settings_of_model(wildcards.model)
    return 0 if settings.engine.device == "cpu" else settings.tensor_parallel_size


def shard_of(wildcards):
    """The cluster job of a run: whole blocks of one sweep, hence one engine; here no job at all."""
    if workflow.local_exec:
        return None
    shard = (int(wildcards["rep"]) - 1) % CONFIG.shards + 1
    sweep = f"{wildcards['model']}-{wildcards['dataset']}-N={wildcards['n']}"
    group = f"{sweep}-shard={shard}"
    # All runs of a shard belong together, though none depends on another: what --group-components
    # is for. The process that runs the job on the cluster is not told that option.
    known = workflow.group_settings.group_components
    workflow.group_settings.group_components = {**known, group: sys.maxsize}
    return group


def every_plan():
    """Ask for the plan of every model and dataset.

    While a shard's job runs, no checkpoint may end: Snakemake would gather the groups anew and
    submit the same runs a second time.
    """
    for model in MODELS:
        for dataset in DATASETS:
            k_grid_of(model, dataset, slots_of(model, dataset))
