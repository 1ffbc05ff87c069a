#!/usr/bin/env bash
# Run the rare tests that a change touches; without a commit to compare with, all of them.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$#" = 0 ]; then
  pytest -m rare
  exec tests/slurm/run.sh
fi
mapfile -t files < <(python tests/support/touched.py "$1" | sed '/^$/d')
slurm=tests/workflow/test_slurm.py
echo "rare tests that the change touches: ${files[*]:-none}"
others=()
for file in "${files[@]}"; do [ "$file" = $slurm ] || others+=("$file"); done
if [ "${#others[@]}" -gt 0 ]; then pytest -m rare "${others[@]}"; fi
if [[ " ${files[*]} " == *" $slurm "* ]]; then tests/slurm/run.sh; fi
