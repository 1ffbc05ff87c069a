"""What of vLLM the policy cannot be kept under."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def refuse_unsupported(config: "VllmConfig") -> None:
    """Refuse a vLLM configuration under which prefill and decode cannot be kept apart.

    Raises:
        ValueError: naming the setting and what to do.
    """
    if config.speculative_config is not None:
        raise ValueError(
            "SwitchingScheduler cannot keep phases apart under speculative decoding; "
            "remove speculative_config"
        )
    if config.parallel_config.pipeline_parallel_size > 1:
        raise ValueError(
            "SwitchingScheduler cannot freeze decodes under pipeline parallelism; "
            "set pipeline_parallel_size=1 and use tensor_parallel_size"
        )
    if config.kv_transfer_config is not None:
        raise ValueError(
            "SwitchingScheduler does not know requests whose KV cache comes from elsewhere; "
            "remove kv_transfer_config"
        )
    if getattr(config, "ec_transfer_config", None) is not None:
        raise ValueError(
            "SwitchingScheduler does not know requests whose encoder outputs come from elsewhere; "
            "remove ec_transfer_config"
        )
    if config.lora_config is not None:
        raise ValueError(
            "SwitchingScheduler cannot keep to max_loras while decodes are frozen; "
            "remove enable_lora"
        )
    model = config.model_config
    if model.runner_type != "generate" or getattr(model, "is_diffusion", False):
        raise ValueError(
            "SwitchingScheduler is for models that generate token by token; remove scheduler_cls"
        )
    if getattr(config.scheduler_config, "prefill_schedule_interval", 1) > 1:
        raise ValueError(
            "SwitchingScheduler decides itself when to prefill; remove prefill_schedule_interval"
        )
