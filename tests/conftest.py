"""Shared by all tests: a tiny random model, and an engine folder of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from checkout import Checkout

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random four-layer Llama with a byte-level tokenizer and a chat template."""
    from tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def command_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of commands that tests start: this checkout, engines of their own."""
    runtime = tmp_path_factory.mktemp("run", numbered=False)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {
        "PATH": path,
        "PYTHONPATH": str(ROOT / "workflow"),
        "PDSWITCH_RUNTIME_DIR": str(runtime),
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture(scope="session")
def finished_workflow(tmp_path_factory, root, tiny_model, command_environment) -> "Checkout":
    """The whole workflow with the tiny model, run to its end; tests work on copies of it.

    Every process leaves in `trace` which modules of ours it ran.
    """
    from checkout import Checkout, make_checkout

    folder = tmp_path_factory.mktemp("finished")
    config = {
        "model": str(tiny_model),
        "datasets": {
            "demo": {},
            "own": {
                "kind": "custom",
                "custom_prompts": "own.jsonl",
                "num_requests": 8,
                "repeats": 1,
            },
        },
        "num_requests": 24,
        "batch_size": 4,
        "max_input_tokens": 300,
        "max_output_tokens": 24,
        "kstar_update_interval": 8,
        "offline_p_multiplier": 1.0,
        "repeats": 2,
        "k_grid": [1, 4],
        "num_prefill_samples": 6,
        "num_decode_repeats": 2,
        "lengths": "replay",
        "sampling": {"temperature": 1.0},
        "engine": {"dtype": "float32"},
    }
    (folder / "trace").mkdir()
    traced = command_environment | {
        # The workflow's own folder has the logger that the default profile names.
        "PYTHONPATH": f"{root / 'tests/support/tracer'}{os.pathsep}{root / 'workflow'}",
        "PDSWITCH_TRACE": str(folder / "trace"),
    }
    checkout = make_checkout(root, folder, config, traced)
    prompts = [json.dumps({"prompt": f"What is {i} and {i}?"}) for i in range(16)]
    (folder / "own.jsonl").write_text("\n".join(prompts) + "\n")
    checkout.snakemake("all", "datasets")
    return Checkout(folder, command_environment)
