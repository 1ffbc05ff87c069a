"""vLLM settings that the scheduler refuses, and vLLM versions on which it was not tried."""

import logging
import re
from typing import TYPE_CHECKING, Any

import msgspec

from pdswitch.errors import InputError
from pdswitch.plugin.policy import Controller
from pdswitch.plugin.run import ORDER_KEY, SchedulerOptions

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["EarlyRefusal"]

# Those of docs/vllm_versions.md.
TRIED_VERSIONS = ("0.26.0", "0.30.0", "0.32.0")

logger = logging.getLogger(__name__)


class EarlyRefusal:
    """Refuses bad settings when vLLM makes a worker: before it loads the weights.

    vLLM builds its scheduler only after them. Load it with
    ``worker_extension_cls="pdswitch.plugin.compatibility.EarlyRefusal"``: vLLM makes it a base of
    its worker class, whose instances this class then creates.
    """

    def __new__(cls, vllm_config: "VllmConfig", *args: Any, **kwargs: Any) -> "EarlyRefusal":
        """Create a worker.

        Raises:
            InputError: as `read_options`.
        """
        read_options(vllm_config)
        return super().__new__(cls)


def read_options(config: "VllmConfig") -> SchedulerOptions:
    """Return what ``additional_config["pdswitch"]`` says.

    Raises:
        InputError: if it makes no sense, or with vLLM settings under which prefill and decode
            cannot be kept apart; it names the setting and what to do.
    """
    _refuse_unsupported(config)
    settings = (config.additional_config or {}).get(ORDER_KEY, {})
    try:
        options = msgspec.convert(settings, type=SchedulerOptions)
        Controller(options.policy, slots_of(config))
    except (msgspec.ValidationError, ValueError) as error:
        raise InputError(
            f"--additional-config: {ORDER_KEY}: {error}; see docs/serving.md"
        ) from error
    parallel = config.parallel_config
    # vLLM gives each rank of a dense model a config of its own, which knows its number alone.
    rank = getattr(parallel, "data_parallel_index", 0)
    if options.allow_orders and (parallel.data_parallel_size > 1 or rank > 0):
        raise InputError(
            "a run cannot be ordered under data parallelism, because each rank schedules for "
            "itself; remove allow_orders, or serve with data_parallel_size=1"
        )
    return options


def slots_of(config: "VllmConfig") -> int:
    """Return N, the requests that vLLM runs at once."""
    scheduler = config.scheduler_config
    # vLLM 0.32 split the admission limit from the number of sequences in a step.
    return getattr(scheduler, "max_num_active_seqs", None) or scheduler.max_num_seqs


def warn_of_untried_version(version: str) -> None:
    """Warn if vLLM is not of a version on which the scheduler was tried."""
    minors = {_minor(tried) for tried in TRIED_VERSIONS}
    if _minor(version) not in minors:
        logger.warning(
            "SwitchingScheduler was tried on vLLM %s; this is %s, whose scheduler may differ: "
            "`make contract` tries it",
            ", ".join(TRIED_VERSIONS),
            version,
        )


def _minor(version: str) -> str:
    found = re.match(r"\d+\.\d+", version)
    return found.group() if found else version


def _refuse_unsupported(config: "VllmConfig") -> None:
    if config.speculative_config is not None:
        raise InputError(
            "SwitchingScheduler cannot keep phases apart under speculative decoding; "
            "remove speculative_config"
        )
    if config.parallel_config.pipeline_parallel_size > 1:
        raise InputError(
            "SwitchingScheduler cannot freeze decodes under pipeline parallelism; "
            "set pipeline_parallel_size=1 and use tensor_parallel_size"
        )
    if config.kv_transfer_config is not None:
        raise InputError(
            "SwitchingScheduler does not know requests whose KV cache comes from elsewhere; "
            "remove kv_transfer_config"
        )
    if getattr(config, "ec_transfer_config", None) is not None:
        raise InputError(
            "SwitchingScheduler does not know requests whose encoder outputs come from elsewhere; "
            "remove ec_transfer_config"
        )
    if config.lora_config is not None:
        raise InputError(
            "SwitchingScheduler cannot keep to max_loras while decodes are frozen; "
            "remove enable_lora"
        )
    model = config.model_config
    if model.runner_type != "generate" or getattr(model, "is_diffusion", False):
        raise InputError(
            "SwitchingScheduler is for models that generate token by token; remove scheduler_cls"
        )
    if getattr(config.scheduler_config, "prefill_schedule_interval", 1) > 1:
        raise InputError(
            "SwitchingScheduler decides itself when to prefill; remove prefill_schedule_interval"
        )
