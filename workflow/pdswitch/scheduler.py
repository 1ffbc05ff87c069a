"""The public address of the scheduler, for `--scheduler-cls` of vLLM."""

from pdswitch.plugin.scheduler import SwitchingScheduler

__all__ = ["SwitchingScheduler"]
