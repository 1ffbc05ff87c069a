#!/usr/bin/env bash
# Install everything into .venv: the GPU build of vLLM where an NVIDIA driver answers, else the CPU build.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
uv_version=0.13.9
torch_cpu_index=https://download.pytorch.org/whl/cpu

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: $("$python" --version) is too old; install Python 3.11 or later, or set PYTHON" >&2
  exit 1
fi
if nvidia-smi >/dev/null 2>&1; then kind=gpu; else kind=cpu; fi
# An image for GPUs may be built where there is none.
kind=${DEVICE_KIND:-$kind}
if [ ! -d "envs/$kind" ]; then echo "error: DEVICE_KIND is $kind; use cpu or gpu" >&2; exit 1; fi
echo "setting up .venv for this machine: $kind"
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
. envs/registry.sh

install() {
  .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps "$@" -r "envs/$kind/requirements.txt"
}
# The lock file is complete, so nothing is resolved here.
if ! install 2>.venv/install.log; then
  if [ "$kind" = cpu ] && grep -q torch .venv/install.log; then
    echo "the package index has no CPU build of torch; trying PyTorch's own"
    install --extra-index-url "$torch_cpu_index" --index-strategy unsafe-best-match
  else
    cat .venv/install.log >&2
    exit 1
  fi
fi
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
echo "done; activate it with: source .venv/bin/activate"
