# Purpose: when the workflow began and what it was told to run again. Its jobs on a cluster, which are
#          processes of their own, must know both. See pdswitch.stages.store.

import time

if workflow.is_main_process:
    os.environ["PDSWITCH_WORKFLOW_BEGAN"] = str(time.time())
    os.environ["PDSWITCH_FORCED"] = "[]"
WORKFLOW_BEGAN = float(os.environ["PDSWITCH_WORKFLOW_BEGAN"])


envvars:
    "PDSWITCH_WORKFLOW_BEGAN",
    "PDSWITCH_FORCED",


@cache
def forced():
    """The rules and files that Snakemake was told to run again, or "everything"."""
    # Snakemake knows them itself once it has read the rules.
    if workflow.is_main_process:
        asked = workflow.dag_settings
        named = {*asked.forcerun, *(asked.targets if asked.forcetargets else ())}
        os.environ["PDSWITCH_FORCED"] = json.dumps(
            "everything" if asked.forceall else sorted(named)
        )
    return json.loads(os.environ["PDSWITCH_FORCED"])


def again(rule):
    """What the jobs of a rule say when Snakemake was told to run them again, or nothing.

    A function of the output is no param that Snakemake compares. A second try of the same workflow
    finds what the first one measured.
    """
    name = own_rule(rule)

    def argument(wildcards, output):
        if forced() == "everything" or not {name, *output}.isdisjoint(forced()):
            return f"--stored-since {os.environ['PDSWITCH_WORKFLOW_BEGAN']}"
        return ""

    return argument
