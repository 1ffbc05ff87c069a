"""What vLLM's workers say of themselves; vLLM mixes `WorkerFacts` into its worker class."""

import os
from typing import Any

from pdswitch.engine.memory import kv_layout, model_bytes
from pdswitch.plugin.compatibility import EarlyRefusal


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
        """Return `model_bytes` and `kv_layout` of this device."""
        return model_bytes(self) | kv_layout(self.vllm_config, self.model_runner.kv_cache_config)


EXTENSION = f"{WorkerFacts.__module__}.{WorkerFacts.__qualname__}"
