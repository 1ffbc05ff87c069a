"""A scheduler of vLLM without a model: configured as an engine would, fed with made-up outputs.

Shared by the contract test and the benchmark. Uses only what all supported versions of vLLM have,
and needs none of its kernels.
"""

import json
import os
from collections import deque
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

import torch
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

BLOCK_TOKENS = 16
# Orders may say anything, as on the workflow's own engine.
TRUSTING = {"pdswitch": {"trusted": True}}
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "eos_token_id": 511,
    "torch_dtype": "float32",
}


def make_scheduler(
    scheduler_class: type,
    folder: Path,
    n_slots: int,
    *,
    blocks: int = 20_000,
    step_tokens: int = 8192,
    additional: dict[str, Any] | None = None,
) -> Any:
    """Build a scheduler for a model of which there is only a config, written into `folder`.

    Args:
        scheduler_class: vLLM's, or a subclass.
        folder: where the model's config goes.
        n_slots: requests that run at once.
        blocks: KV blocks of `BLOCK_TOKENS` tokens.
        step_tokens: token budget of a step.
        additional: vLLM's ``additional_config``; by default that of the workflow's own engine.
    """
    (folder / "config.json").write_text(json.dumps(MODEL))
    config = EngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        max_num_seqs=n_slots,
        max_model_len=2048,
        max_num_batched_tokens=step_tokens,
        enable_prefix_caching=False,
        block_size=BLOCK_TOKENS,
        enforce_eager=True,
        additional_config=TRUSTING if additional is None else additional,
    ).create_engine_config()
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(
        block_size=BLOCK_TOKENS, num_kv_heads=1, head_size=64, dtype=torch.float32
    )
    return scheduler_class(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(
            num_blocks=blocks,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
        ),
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK_TOKENS,
    )


def make_request(name: str, prompt: int, tokens: int, order: Any = None) -> Request:
    """A request of `prompt` tokens that generates exactly `tokens`."""
    params = SamplingParams(
        max_tokens=tokens,
        ignore_eos=True,
        extra_args=None if order is None else {"pdswitch": order},
    )
    return Request(name, list(range(prompt)), params, None)


def made_up_output(scheduled: SchedulerOutput, scheduler: Any) -> ModelRunnerOutput:
    """What a model would return for a step: a token for every request whose prompt is complete.

    To be called before the next `schedule()`, which changes the requests.
    """
    names = list(scheduled.num_scheduled_tokens)
    return ModelRunnerOutput(
        req_ids=names,
        req_id_to_index={name: i for i, name in enumerate(names)},
        sampled_token_ids=[
            [] if scheduler.requests[name].is_prefill_chunk else [7] for name in names
        ],
    )


class Loop:
    """vLLM's engine loop around a scheduler.

    Args:
        scheduler: from `make_scheduler`.
        behind: steps scheduled before the output of the first of them arrives, less one: 0 is the
            plain loop, 1 that of asynchronous scheduling.
    """

    def __init__(self, scheduler: Any, behind: int) -> None:
        self.scheduler, self._behind = scheduler, behind
        self._in_flight: deque[tuple[SchedulerOutput, ModelRunnerOutput]] = deque()

    def step(self) -> SchedulerOutput:
        """Schedule a step, then take in the oldest output if it is due."""
        scheduled = self.scheduler.schedule()
        self._in_flight.append((scheduled, made_up_output(scheduled, self.scheduler)))
        if len(self._in_flight) > self._behind:
            self.scheduler.update_from_output(*self._in_flight.popleft())
        return scheduled

    def serve(self, limit: int = 5000) -> list[SchedulerOutput]:
        """Step until every request has ended and every output has come."""
        steps: list[SchedulerOutput] = []
        while self.scheduler.has_unfinished_requests():
            if len(steps) == limit:
                raise RuntimeError(f"requests are still unfinished after {limit} steps")
            steps.append(self.step())
        while self._in_flight:
            self.scheduler.update_from_output(*self._in_flight.popleft())
        return steps
