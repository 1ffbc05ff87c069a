"""Which variables reach an engine, and what of them the results tell."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdswitch.engine.environment import (
    additions,
    engine_environment,
    losses,
    published,
    refuse_fields,
    tuning,
)

SHELL = {"PATH": "/bin", "HOME": "/me", "HF_TOKEN": "hf_1", "https_proxy": "http://me:pw@p"}
names = st.from_regex(r"[A-Z][A-Z_]{0,20}", fullmatch=True)


def snakemake_variables() -> list[str]:
    """The variables that the installed Snakemake sets for every job, read from its source."""
    source = Path(find_spec("snakemake.shell").origin).read_text()
    return re.findall(r'envvars\["(\w+)"\] = threads', source)


def test_no_thread_variable_of_snakemake_reaches_an_engine():
    threads = dict.fromkeys(snakemake_variables(), "2")
    assert {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"} <= threads.keys()
    job = SHELL | threads
    assert engine_environment(job, tuning(job), "") == engine_environment(SHELL, tuning(SHELL), "")


@pytest.mark.parametrize(
    "name",
    [
        *("SLURM_CPUS_PER_TASK", "SLURM_JOB_ID", "PBS_NCPUS", "LSB_MAX_NUM_PROCESSORS"),
        *("OMPI_COMM_WORLD_RANK", "PMI_RANK", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"),
        *("OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "MALLOC_ARENA_MAX", "LANG"),
        *("PYTHONOPTIMIZE", "PYTHONHASHSEED", "PYTHONDEVMODE", "SNAKEMAKE_PROFILE"),
    ],
)
def test_what_a_cluster_or_a_job_exports_stays_outside(name):
    assert name not in engine_environment({name: "1"}, tuning({name: "1"}), "")


def test_a_shell_s_settings_of_vllm_and_nccl_pass_and_are_part_of_the_engine():
    shell = SHELL | {"VLLM_USE_FLASHINFER_SAMPLER": "0", "NCCL_NVLS_ENABLE": "0"}
    own = tuning(shell)
    assert own == {"NCCL_NVLS_ENABLE": "0", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
    assert own.items() <= engine_environment(shell, own, "").items()
    assert SHELL.items() <= engine_environment(shell, own, "").items()


def test_the_config_goes_before_the_shell():
    shell = {"VLLM_LOGGING_LEVEL": "DEBUG", "TMPDIR": "/tmp"}
    own = tuning(shell) | {"VLLM_LOGGING_LEVEL": "INFO", "OMP_NUM_THREADS": "4", "TMPDIR": "/big"}
    found = engine_environment(shell, own, "")
    assert found == own | {"LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize("visible", ["", "1,0"])
def test_devices_are_named_by_the_spec_alone(visible):
    shell = {"CUDA_VISIBLE_DEVICES": "3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    found = engine_environment(shell, tuning(shell), visible)
    assert found.get("CUDA_VISIBLE_DEVICES", "") == visible
    assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


@given(st.dictionaries(names, st.text(max_size=5)), st.dictionaries(names, st.text(max_size=5)))
def test_an_engine_differs_by_what_was_asked_for_alone(starter, own):
    found = engine_environment(starter, own, "")
    assert own.items() <= found.items() | {("LC_ALL", own.get("LC_ALL"))}
    assert additions(published(own), published(found)) == []
    assert losses(published(own), published(found)) == []


def test_published_are_the_values_of_settings_alone():
    shell = SHELL | {
        "VLLM_API_KEY": "k",
        "Aws_Secret": "s",
        "DATABASE_URL": "postgres://me:pw@db",
        "FLASHINFER_CUBINS_REPOSITORY": "https://me:pw@p/",
        "GITHUB_PAT": "g",
    }
    settings = {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "2", "VLLM_MAX_TOKENS_PER_EXPERT": "1"}
    assert published(shell | settings) == dict.fromkeys(shell) | settings


def test_secrets_of_the_shell_pass_and_are_no_part_of_the_engine():
    shell = {"VLLM_API_KEY": "k", "NVIDIA_API_KEY": "n", "HF_TOKEN": "h"}
    assert tuning(shell) == {}
    found = engine_environment(shell, {}, "")
    assert shell.items() <= found.items()
    assert additions({}, published(found)) == []


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("CUDA_VISIBLE_DEVICES", "set it in the shell"),
        ("VLLM_ENABLE_V1_MULTIPROCESSING", "set disable_multiprocessing"),
    ],
)
def test_what_the_spec_has_as_a_field_is_set_there(name, remedy):
    with pytest.raises(ValueError, match=f"may not set {name}; {remedy}"):
        refuse_fields({name: "1"})
    assert name not in tuning({name: "1"})


def test_a_variable_too_many_too_few_or_changed_is_named():
    asked = {"NCCL_DEBUG": "INFO", "VLLM_A": "1", "VLLM_API_KEY": None}
    found = {"PATH": None, "NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": "2"}
    assert additions(asked, found) == ["OMP_NUM_THREADS"]
    assert losses(asked, found) == ["NCCL_DEBUG", "VLLM_A", "VLLM_API_KEY"]
    beside = {"HOME": None, "CUDA_VISIBLE_DEVICES": "0", "SHLVL": None, "PWD": None}
    assert additions(asked, asked | beside) == losses(asked, asked | beside) == []
