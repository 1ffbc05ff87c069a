#!/usr/bin/env bash
# Install Slurm where it is missing and can be, start it, run the tests that need it, end it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ "$(id -u)" != 0 ]; then
  echo "the Slurm tests are skipped: starting a Slurm of one's own takes root"
  exit 0
fi
# Left behind by tests that were killed.
left=$(readlink /etc/slurm/slurm.conf || true)
if [[ $left == */pdswitch-slurm.*/slurm.conf ]] && [ -e "$left" ]; then
  "$here/stop.sh" "$(dirname "$left")"
  rm -rf "$(dirname "$left")"
fi
if [ -e /etc/slurm/slurm.conf ]; then
  echo "the Slurm tests are skipped: this machine has a Slurm of its own (/etc/slurm/slurm.conf)"
  exit 0
fi
install_slurm() {
  apt-get update --quiet=2 &&
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends \
      slurm-wlm munge >/dev/null
}
# `type` wants all of them.
if ! type slurmctld slurmd munged sbatch &>/dev/null && ! install_slurm; then
  echo "the Slurm tests are skipped: slurm-wlm and munge could not be installed"
  exit 0
fi
folder=$(mktemp --directory --tmpdir pdswitch-slurm.XXXX)
chmod 755 "$folder"
trap '"$here/stop.sh" "$folder"; rm -rf "$folder"' EXIT
SLURM_CONF=$("$here/start.sh" "$folder")
export SLURM_CONF PDSWITCH_TEST_SLURM=$folder
pytest -m slurm "$@"
