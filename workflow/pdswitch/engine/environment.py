"""The environment variables of an engine: a list says which ones pass, whoever starts it.

A job inherits more than a shell has. Snakemake sets OMP_NUM_THREADS, MKL_NUM_THREADS and others to
the threads of a rule, and a cluster adds its own. torch obeys them: on the CPU two threads then
spin on one core, and on a GPU the threads take the host's time. So no variable passes that is not
named here, and the user sets the rest under `engine.environment`.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase

# What an engine needs to find its files and the network. It changes no step, so it is no part of an
# engine's key; results name these variables without their values.
LOCATIONS = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX"),
    *("XDG_*", "HF_*", "HUGGING_FACE_*", "TRANSFORMERS_*", "AWS_*", "AZURE_*", "GOOGLE_*"),
    *("SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "*_proxy", "*_PROXY", "PDSWITCH_*"),
)
# What changes how an engine computes: part of its key.
TUNING = (
    *("VLLM_*", "CUDA_*", "CUBLAS_*", "CUDNN_*", "NCCL_*", "NVIDIA_*", "NVSHMEM_*", "GLOO_*"),
    *("TORCH_*", "TORCHINDUCTOR_*", "PYTORCH_*", "TRITON_*", "FLASHINFER_*", "RAY_*", "UCX_*"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"),
)
# An engine's devices are part of its spec by themselves.
DEVICES = "CUDA_VISIBLE_DEVICES"
# Of whatever language a shell is, an engine reads and writes UTF-8.
LOCALE = {"LC_ALL": "C.UTF-8"}
SECRETS = ("*KEY*", "*TOKEN*", "*SECRET*", "*PASSWORD*", "*CREDENTIAL*")


def tuning(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that change how an engine computes, sorted."""
    found = {name: environment[name] for name in sorted(environment) if _matches(name, TUNING)}
    found.pop(DEVICES, None)
    return found


def engine_environment(
    starter: Mapping[str, str], own: Mapping[str, str], visible_devices: str
) -> dict[str, str]:
    """Return all variables of an engine process.

    Args:
        starter: environment of the process that starts the engine; only `LOCATIONS` pass.
        own: `EngineSpec.environment`: `tuning` of the shell, and what the user configured.
        visible_devices: CUDA_VISIBLE_DEVICES, empty for all.
    """
    passed = {name: value for name, value in starter.items() if _matches(name, LOCATIONS)}
    devices = {DEVICES: visible_devices} if visible_devices else {}
    return passed | LOCALE | devices | dict(own)


def differences(asked: Mapping[str, str | None], found: Mapping[str, str | None]) -> list[str]:
    """Return which variables an engine has that it should not have, or the other way round.

    Args:
        asked: `EngineSpec.environment`, published.
        found: environment of the process when it began, published.
    """
    settled = {DEVICES, *LOCALE}
    return [
        name
        for name in sorted({*asked, *found} - settled)
        if not _matches(name, LOCATIONS)
        and (name in asked, asked.get(name)) != (name in found, found.get(name))
    ]


def published(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return an environment as it may be published, sorted: secrets and locations by name only."""
    return {
        name: None if _matches(name, LOCATIONS) or _matches(name.upper(), SECRETS) else value
        for name, value in sorted(environment.items())
    }


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
