# Purpose: what workflows may share by Snakemake's cache: `--cache prompts conversion`. Snakemake finds
#          a result again by the rules' commands, params and inputs, so whatever else could change it
#          must be in those.

from importlib import metadata

CACHEABLE = {"conversion", "prompts"}
CONVERTING = ("torch", "transformers", "gguf")
TOKENIZING = ("transformers", "tokenizers", "jinja2", "pyarrow")


def refuse_stale_results(asked):
    """Stop if one of these rules could be given an old result by the cache."""
    ours = {rule.name for rule in workflow.modifier.rules}
    for other in sorted(set(asked) & ours - {own_rule(name) for name in CACHEABLE}):
        raise WorkflowError(
            f"--cache {other}: only {', '.join(sorted(CACHEABLE))} can be shared between workflows; "
            "name just those"
        )
    for slug, name in MODELS.items():
        revision = settings_of_model(slug).engine.revision
        local = name.startswith(WHEEL_PREFIX) or local_path(name) is not None
        if not local and revision is None:
            raise WorkflowError(
                f"--cache: {name} may change on the hub; set engine.revision to a commit"
            )
    for dataset in DATASETS:
        source = dataset_options(dataset, CONFIG.dataset_source(dataset))
        if source.location and not source.revision and not local_data(dataset):
            raise WorkflowError(
                f"--cache: {source.location} may change on the hub; "
                f"set datasets.{dataset}.revision to a commit"
            )


@cache
def versions(*packages):
    """The installed versions of these packages.

    As a param that is a function of input it is part of a cached result's key, and yet reruns
    nothing when a package is updated.
    """
    return {
        package: metadata.version(package)
        for package in packages
        if any(metadata.distributions(name=package))
    }
