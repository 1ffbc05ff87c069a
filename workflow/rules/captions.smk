# Purpose: what a figure is drawn from, and what Snakemake's own report prints under it.

from pdswitch.figures.catalogue import RESULT_FILES
from pdswitch.files import read_json


def result_file(name):
    """The path of a result file that figures are drawn from."""
    place = RESULT_FILES[name]
    return f"{RESULTS}/{os.path.normpath(f'{{model}}/{{dataset}}/N={{n}}/{place}')}"


class Caption:
    """What Snakemake's own report prints under a figure; made when it is printed, not before."""

    def __init__(self, figure, wildcards):
        self._figure = figure
        self._results = result_file("results").format(**wildcards)
        self._dataset = wildcards.dataset

    def __str__(self):
        known = {
            **settings_of(self._dataset).model_dump(mode="json"),
            "n_offline": settings_of(self._dataset).n_offline,
            "num_prefill_samples": CONFIG.num_prefill_samples,
            "num_decode_repeats": CONFIG.num_decode_repeats,
        }
        said = [f"{key}: {known[key]}" for key in self._figure.settings]
        settings = f" Settings: {', '.join(said)}." if said else ""
        return self._figure.caption(read_json(self._results)) + settings
