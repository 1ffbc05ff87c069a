"""The environment variables of an engine: a list says which ones pass, whoever starts it.

A job inherits more than a shell has. Snakemake sets OMP_NUM_THREADS, MKL_NUM_THREADS and others to
the threads of a rule, and a cluster adds its own. torch obeys them: on a CPU two threads then wait
for each other on one core. So no variable passes that is not named here. The user sets the rest
under `engine.environment`.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

from pdswitch.errors import InputError

# What an engine needs to find its files, compilers and the network. It changes no step, so it is no
# part of an engine's key; results name these variables without their values.
LOCATIONS = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "VIRTUAL_ENV", "CONDA_PREFIX", "XDG_*"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX"),
    *("CC", "CXX", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "MAX_JOBS"),
    *("HF_*", "HUGGING_FACE_*", "HUGGINGFACE_*", "TRANSFORMERS_*", "MODELSCOPE_*", "DO_NOT_TRACK"),
    *("AWS_*", "AZURE_*", "GOOGLE_*", "S3_*", "RUNAI_STREAMER_*", "NETRC", "KRB5CCNAME"),
    *("SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "*_proxy", "*_PROXY", "PDSWITCH_*"),
)
# What changes how an engine computes: part of its key.
TUNING = (
    *("VLLM_*", "CUDA_*", "CUBLAS_*", "CUDNN_*", "NCCL_*", "NVIDIA_*", "NVSHMEM_*", "GLOO_*"),
    *("TORCH_*", "TORCHINDUCTOR_*", "PYTORCH_*", "TRITON_*", "FLASHINFER_*", "RAY_*", "UCX_*"),
    *("NVCC_*", "DG_*", "LD_LIBRARY_PATH", "LD_PRELOAD", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"),
)
# What a user may configure besides, and what a job may leak: worth its value in a record.
THREADING = ("*_NUM_THREADS", "*_MAXIMUM_THREADS", "OMP_*", "GOMP_*", "KMP_*", "MKL_*")
SECRETS = ("*KEY*", "*_TOKEN", "*SECRET*", "*PASS*", "*PWD*", "*AUTH*", "*CREDENTIAL*")
URL_WITH_PASSWORD = re.compile(r"://[^/@\s]*@")
DEVICES = "CUDA_VISIBLE_DEVICES"
# The spec has these as fields of its own.
FIELDS = (DEVICES, "VLLM_ENABLE_V1_MULTIPROCESSING")
# An engine reads and writes UTF-8, whatever the language of the shell.
LOCALE = {"LC_ALL": "C.UTF-8"}
# A wrapper script around Python adds these.
WRAPPER = ("PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE")


def tuning(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that change how an engine computes, sorted."""
    return {
        name: environment[name]
        for name in sorted(environment)
        if _matches(name, TUNING) and not _is_secret(name) and name not in FIELDS
    }


def engine_environment(
    starter: Mapping[str, str], own: Mapping[str, str], visible_devices: str
) -> dict[str, str]:
    """Return all variables of an engine process.

    Args:
        starter: environment of the process that starts the engine; only `LOCATIONS` pass, and the
            secrets among `TUNING`.
        own: `EngineSpec.environment`: `tuning` of the shell, and what the user configured.
        visible_devices: CUDA_VISIBLE_DEVICES, empty for all.
    """
    passed = {
        name: value
        for name, value in starter.items()
        if _matches(name, LOCATIONS) or (_matches(name, TUNING) and _is_secret(name))
    }
    devices = {DEVICES: visible_devices} if visible_devices else {}
    return passed | LOCALE | devices | dict(own)


def refuse_fields(configured: Mapping[str, str]) -> None:
    """Refuse variables in `engine.environment` that the spec has as fields of its own.

    Raises:
        InputError: with the remedy.
    """
    remedies = ("set it in the shell", "set disable_multiprocessing")
    for name, remedy in zip(FIELDS, remedies, strict=True):
        if name in configured:
            raise InputError(f"engine.environment may not set {name}; {remedy}")


def additions(asked: Mapping[str, str | None], found: Mapping[str, str | None]) -> list[str]:
    """Return the variables that an engine has, and that nobody asked for.

    Args:
        asked: `EngineSpec.environment`, published.
        found: environment of the process when it began, published.
    """
    settled = {*FIELDS, *LOCALE, *WRAPPER}
    return [
        name
        for name in sorted(found.keys() - asked.keys() - settled)
        if not _matches(name, LOCATIONS) and not _is_secret(name)
    ]


def losses(asked: Mapping[str, str | None], found: Mapping[str, str | None]) -> list[str]:
    """Return the variables that an engine lacks or has with another value; see `additions`."""
    return [
        name
        for name in sorted(asked.keys() - {*LOCALE})
        if name not in found or asked[name] != found[name]
    ]


def published(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return an environment as it may be published, sorted.

    A value is there only for variables that change how an engine computes, and only if it is no
    secret; all others are None.
    """
    return {
        name: value
        if _matches(name, TUNING + THREADING)
        and not _is_secret(name)
        and not URL_WITH_PASSWORD.search(value)
        else None
        for name, value in sorted(environment.items())
    }


def _is_secret(name: str) -> bool:
    return _matches(name.upper(), SECRETS)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
