"""The contract of `scheduler_contract.py` on the installed vLLM, in a process without numba."""

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_installed_vllm_keeps_the_contract(root):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/scheduler_contract.py"],
        cwd=root,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
