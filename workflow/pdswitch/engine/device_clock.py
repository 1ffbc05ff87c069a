"""When the device really began and ended each step: an instrument to check the step record with.

vLLM mixes `DeviceClock` into its worker (``worker_extension_cls``). Between `start_device_clock`
and `stop_device_clock` it records CUDA events around every step, and the host's clock beside them.
Measured runs go without it.
"""

import time
from typing import Any

import msgspec

from pdswitch.engine.worker import WorkerFacts

EXTENSION = "pdswitch.engine.device_clock.DeviceClock"


class DeviceStep(msgspec.Struct):
    """One step as the worker saw it; all times in seconds since the clock was started.

    Attributes:
        tokens: scheduled tokens.
        begin_s: the device reached the step; its work before has ended.
        forward_s: the device has done the model's forward pass.
        end_s: the device has sampled the step's tokens.
        host_begin_s: the host began to prepare the step.
        host_forward_s: the host had launched the forward pass.
        host_end_s: the host had launched the sampling.
    """

    tokens: int
    begin_s: float
    forward_s: float
    end_s: float
    host_begin_s: float
    host_forward_s: float
    host_end_s: float


class DeviceClock(WorkerFacts):
    """Methods that vLLM adds to its worker; called through `collective_rpc`."""

    def start_device_clock(self) -> None:
        """Begin to record; the worker's `execute_model` and `sample_tokens` are wrapped."""
        worker: Any = self
        clock = _CudaEvents() if worker.device.type == "cuda" else _HostClock()
        begun: list[tuple[int, list[Any], list[float]]] = []
        base, host_base = clock.mark(), time.monotonic()
        execute, sample = worker.execute_model, worker.sample_tokens

        def mark() -> None:
            _, device, host = begun[-1]
            device.append(clock.mark())
            host.append(time.monotonic() - host_base)

        def timed_execute(scheduler_output: Any) -> Any:
            begun.append((scheduler_output.total_num_scheduled_tokens, [], []))
            mark()
            output = execute(scheduler_output)
            mark()
            return output

        def timed_sample(*args: Any, **kwargs: Any) -> Any:
            output = sample(*args, **kwargs)
            mark()
            return output

        worker.execute_model, worker.sample_tokens = timed_execute, timed_sample
        worker.device_clock_reader = lambda: [
            (tokens, [clock.seconds(base, moment) for moment in device], host)
            for tokens, device, host in begun
        ]

    def stop_device_clock(self) -> list[dict[str, Any]]:
        """Stop recording and return the steps that scheduled tokens, as builtins."""
        worker: Any = self
        del worker.execute_model, worker.sample_tokens
        rows = worker.device_clock_reader()
        del worker.device_clock_reader
        steps = []
        for tokens, device, host in rows:
            if tokens:
                # Where the forward pass returns the tokens too, nothing is sampled after it.
                device, host = (times + times[-1:] * (3 - len(times)) for times in (device, host))
                steps.append(msgspec.structs.asdict(DeviceStep(tokens, *device, *host)))
        return steps


class _CudaEvents:
    """Moments in the order of the device's stream."""

    def mark(self) -> Any:
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, moment: Any) -> float:
        moment.synchronize()
        return float(start.elapsed_time(moment)) / 1e3


class _HostClock:
    """On the CPU a call returns when its work is done."""

    def mark(self) -> float:
        return time.monotonic()

    def seconds(self, start: float, moment: float) -> float:
        return moment - start
