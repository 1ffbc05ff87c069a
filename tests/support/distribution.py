"""The package as users get it: an sdist and a wheel, and environments to install them into."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PARTS = ("pyproject.toml", "README.md", "LICENSE")
# Nothing of the checkout may be imported.
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command: str | Path, expect: int = 0) -> str:
    """Run a command outside of the checkout; return what it printed, errors last."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env=CLEAN,
        capture_output=True,
        text=True,
        timeout=280,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == expect, printed[-4000:]
    return printed


def build(root: Path, folder: Path) -> tuple[Path, Path]:
    """Build the sdist from a copy of the sources, and the wheel from the sdist; return both."""
    source, built = folder / "source", folder / "built"
    shutil.copytree(
        root / "workflow/pdswitch",
        source / "workflow/pdswitch",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for part in PARTS:
        shutil.copy(root / part, source)
    uv = Path(sys.executable).with_name("uv")
    options = ("--no-build-isolation", "--python", sys.executable, "--out-dir", built)
    run(uv, "build", "--quiet", *options, source)
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    return sdist, wheel


class Environment:
    """A virtual environment with nothing in it but what is installed into it."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self.bin = folder / "bin"
        (self.packages,) = folder.glob("lib/python*/site-packages")

    def install(self, *requirements: str | Path) -> None:
        """Install with pip, from wherever pip is configured to."""
        pip = (sys.executable, "-m", "pip", "--python", self.bin / "python")
        run(*pip, "install", "--quiet", "--only-binary", ":all:", *requirements)

    def also_sees(self, packages: Path) -> None:
        """Put another folder of packages behind its own; that folder's .pth files do not count."""
        (self.packages / "behind.pth").write_text(f"{packages}\n")

    def python(self, code: str) -> str:
        """Run code and return what it printed."""
        return run(self.bin / "python", "-c", code)
