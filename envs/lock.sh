#!/usr/bin/env bash
# Resolve envs/*/requirements.in to exact versions, and write the conda files beside them.
set -euo pipefail
cd "$(dirname "$0")"
uv=../.venv/bin/uv
. ./registry.sh
compile=("$uv" pip compile --quiet --no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_39
         --custom-compile-command "make lock" --override overrides.txt)
"${compile[@]}" --override cpu/overrides.txt cpu/requirements.in -o cpu/requirements.txt
env -u UV_FIND_LINKS "${compile[@]}" gpu/requirements.in -o gpu/requirements.txt
../.venv/bin/python conda.py
