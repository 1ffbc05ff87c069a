"""The warm engine: one vLLM process per device that serves the measured runs of a workflow.

`spec` says what makes two engines different, `protocol` what goes over the socket, `host` is the
process that owns vLLM, `client` starts or reuses it for a job. Only `vllm_engine` imports vLLM.
"""
