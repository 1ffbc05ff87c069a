#!/usr/bin/env bash
# Start a Slurm of one node with a made-up GPU under FOLDER; say which SLURM_CONF it has.
# Needs root, and the Debian packages slurm-wlm and munge.
set -euo pipefail
folder=${1:?usage: start.sh FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"/{state,spool}
folder=$(cd "$folder" && pwd)
host=$(hostname -s)

if [ -e /etc/slurm/slurm.conf ]; then
  echo "error: /etc/slurm/slurm.conf is there already: this machine has a Slurm of its own" >&2
  exit 1
fi
sed -e "s#@FOLDER@#$folder#" -e "s#@HOST@#$host#" "$here/slurm.conf.in" >"$folder/slurm.conf"
# A device file is all that Slurm asks of a GPU: this one is like /dev/null.
[ -c "$folder/gpu0" ] || mknod "$folder/gpu0" c 1 3
echo "NodeName=node Name=gpu File=$folder/gpu0" >"$folder/gres.conf"
# Job steps start without SLURM_CONF and look here.
mkdir -p /etc/slurm
ln -sfn "$folder/slurm.conf" /etc/slurm/slurm.conf
ln -sfn "$folder/gres.conf" /etc/slurm/gres.conf

[ -s "$folder/munge.key" ] || head -c 1024 /dev/urandom >"$folder/munge.key"
chmod 400 "$folder/munge.key"
export SLURM_CONF=$folder/slurm.conf
munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
slurmctld -i -c
slurmd -N node
for _ in $(seq 150); do
  [ "$(timeout 5 sinfo --noheader --Format=StateLong 2>/dev/null | sort -u | xargs)" = idle ] && {
    echo "$SLURM_CONF"
    exit
  }
  sleep 0.2
done
tail -n 20 "$folder"/slurmctld.log "$folder"/slurmd.log >&2
echo "error: Slurm did not come up" >&2
exit 1
