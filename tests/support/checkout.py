"""Copies of the project in which a test runs Snakemake and edits what it likes."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

PARTS = ("Snakefile", "workflow", "profiles", "config", "envs")
CONFIG_FILE = "test.yaml"


class Checkout:
    """A copy of the project, with the config that it is run with."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def snakemake(self, *arguments: str, expect: int = 0) -> str:
        """Run snakemake here and return what it printed."""
        run = subprocess.run(
            ["snakemake", "--configfile", CONFIG_FILE, "--cores", "2", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=800,
        )
        output = run.stdout + run.stderr
        assert run.returncode == expect, output[-6000:]
        return output

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return how many jobs of each rule a run would start, the figures' rules as one."""
        return dict(Counter(job.partition(" ")[0] for job in self.planned_jobs(*arguments)))

    def planned_jobs(self, *arguments: str) -> list[str]:
        """Return the jobs a run would start: rule and wildcards, sorted.

        The rules of the figures count as one, which counts once for a dataset. That n is the
        config's batch_size goes without saying.
        """
        usual = f", n={self.config()['batch_size']}"
        output = self.snakemake("-n", *arguments)
        found = set()
        for rule, details in re.findall(
            r"^(?:rule|checkpoint) (\w+):\n((?: +\S.*\n)*)", output, re.MULTILINE
        ):
            wildcards = re.search(r"^ +wildcards: (.*)$", details, re.MULTILINE)
            name = "figures" if rule.startswith("figure_") else rule
            found.add(f"{name} {wildcards[1].replace(usual, '')}" if wildcards else name)
        return sorted(found - {"all"})

    def cell(self, dataset: str, n_slots: int = 4) -> Path:
        """Return the folder of a dataset's results."""
        (cell,) = self.folder.glob(f"results/*/{dataset}/N={n_slots}")
        return cell

    def config(self) -> dict[str, Any]:
        """Return the config as it stands."""
        return yaml.safe_load((self.folder / CONFIG_FILE).read_text())

    def configure(self, **changes: Any) -> None:
        """Change top-level keys of the config."""
        (self.folder / CONFIG_FILE).write_text(yaml.safe_dump(self.config() | changes))

    def configure_anew(self, config: dict[str, Any]) -> None:
        """Write another config."""
        (self.folder / CONFIG_FILE).write_text(yaml.safe_dump(config))

    def copy_to(self, folder: Path) -> "Checkout":
        """Copy the project with its results, times included, to another place."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True, symlinks=True)
        return Checkout(folder, self.environment)


def make_checkout(
    root: Path, folder: Path, config: dict[str, Any], environment: dict[str, str]
) -> Checkout:
    """Copy the project without results."""
    for part in PARTS:
        source = root / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / part)
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(config))
    return Checkout(folder, environment)
