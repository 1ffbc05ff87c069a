# Purpose: the workflow's own folder, the validated config, the folders that are written, and what
#          the command of every job begins with.

import json
import os
import shlex
import sys
from functools import cache

from snakemake.common.configfile import load_configfile

# The folder of the Snakefile, be it the one that is run or that of a module, as seen from the
# working folder: "." in a checkout, so that its place changes no input of a rule.
CHECKOUT = os.path.relpath(
    os.path.realpath(os.path.join(str(workflow.current_basedir), "..", ".."))
)
if set(CHECKOUT) & set("{}"):
    sys.exit(
        f"error: the workflow lies in {CHECKOUT}: Snakemake takes braces in a path to its sources "
        "for wildcards; call it from its own folder, or rename that folder"
    )
LIBRARY = os.path.abspath(os.path.join(CHECKOUT, "workflow"))
sys.path.insert(0, LIBRARY)

from pdswitch.config import parse_config
from pdswitch.engine.processes import start_time
from pdswitch.errors import InputError
from pdswitch.figures.catalogue import figures
from pdswitch.paths import written_folder
from pdswitch.stages.output_folder import refuse_unusable
from pdswitch.stages.terminal import print_anything

print_anything()

try:
    CONFIG = parse_config(
        config,
        workflow.config_settings.config,
        [load_configfile(file) for file in workflow.config_settings.configfiles],
    )
    refuse_unusable(CONFIG.output_dir)
    FIGURE_CATALOGUE = figures()
except InputError as error:
    # Snakemake would put the place in this file below the sentence.
    sys.exit(f"error: config: {error}")

RESULTS = written_folder(CONFIG.output_dir.rstrip("/"))
STORE = written_folder(CONFIG.store_dir)


def own_rule(name):
    """The name that Snakemake knows one of our rules by; a module may rename it."""
    return workflow.modifier.modify_rulename(name)


def in_command(text):
    """A text as part of a command that Snakemake formats."""
    return shlex.quote(text).replace("{", "{{").replace("}", "}}")


# Scripts import the library of this checkout, wherever it lies. How long an engine is kept and
# waited for, and the store, are no params, because no result depends on them: a change reruns
# nothing. A job whose workflow is killed while it starts must still know that it had one.
shell.prefix(
    f"set -euo pipefail; export PYTHONPATH={in_command(LIBRARY)}"
    "${{PYTHONPATH:+:$PYTHONPATH}}"
    f" PDSWITCH_WORKFLOW={os.getpid()}:{start_time(os.getpid())}"
    f" PDSWITCH_IDLE_TIMEOUT_S={CONFIG.engine.idle_timeout_s}"
    f" PDSWITCH_START_TIMEOUT_S={CONFIG.engine.start_timeout_s}"
    f" PDSWITCH_RUN_TIMEOUT_S={CONFIG.engine.run_timeout_s}"
    f" PDSWITCH_STORE={in_command(STORE)} PDSWITCH_STORE_GB={CONFIG.store_gb}; "
)
