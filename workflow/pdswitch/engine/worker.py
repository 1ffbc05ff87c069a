"""What vLLM's workers say of themselves; vLLM mixes `WorkerFacts` into its worker class."""

import os
from typing import Any

from pdswitch.compatibility import EarlyRefusal
from pdswitch.engine.memory import kv_layout, other_bytes, weight_bytes


class WorkerFacts(EarlyRefusal):
    """Methods that vLLM adds to its worker (``worker_extension_cls``)."""

    def worker_facts(self) -> dict[str, Any]:
        """Return threads of torch, number of cores the process may use, and its niceness."""
        import torch

        return {
            "torch_threads": torch.get_num_threads(),
            "cores": len(os.sched_getaffinity(0)),
            "nice": os.nice(0),
        }

    def memory_facts(self: Any) -> dict[str, Any]:
        """Return `weight_bytes` and `other_bytes` of this device, and `kv_layout`."""
        cache = self.model_runner.kv_cache_config
        return {
            "weight_bytes": weight_bytes(self.get_model()),
            "other_bytes": other_bytes(self),
            **kv_layout(self.vllm_config, cache),
        }


EXTENSION = f"{WorkerFacts.__module__}.{WorkerFacts.__qualname__}"
