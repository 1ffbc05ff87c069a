"""The warm engine: one vLLM process per device that serves the measured runs of a workflow.

It imports plugin, stages and `profiling.two_modes`; only `vllm_engine` and `worker` import vLLM.
Start with `job`, which a measured stage calls; `spec` says what makes two engines different,
`protocol` what goes over the socket, `host` owns vLLM, `client` starts or reuses it.
"""
