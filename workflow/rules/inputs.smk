# Purpose: the files that a rule watches besides the results of other rules. Rules call their script
#          through `shell:` and declare it, with the library modules that it imports, as inputs:
#          Snakemake compares small files by content, so that touching a source reruns nothing and
#          editing one reruns the stages that import it.

from pdswitch.datasets.options import dataset_options, loader_module
from pdswitch.datasets.source import input_files
from pdswitch.model import WHEEL_PREFIX, model_files
from pdswitch.paths import local_path
from pdswitch.stages.inputs import stamps, watchable
from pdswitch.stages.sources import stage_sources


def of_checkout(path):
    """The path of a file of the workflow's own."""
    return os.path.normpath(os.path.join(CHECKOUT, path))


def watched_files(stage, *chosen):
    """The script of a stage and all library modules it imports, as paths."""
    return [of_checkout(path) for path in stage_sources(CHECKOUT, stage, *chosen)]


def loader_of(dataset):
    """The module that reads a dataset."""
    return loader_module(CONFIG.dataset_source(dataset)["kind"])


def local_data(dataset):
    """The files of this machine that a dataset is read from, so that an edit is noticed."""
    return input_files(dataset_options(dataset, CONFIG.dataset_source(dataset)))
