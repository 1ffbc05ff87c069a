"""Tests in a process of their own: vLLM must not be built where numba is imported."""

import os
import subprocess
import sys
from pathlib import Path


def check_separately(root: Path, file: str) -> None:
    """Run a file of tests in its own process; at least one must pass and none may fail."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", file],
        cwd=root,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
