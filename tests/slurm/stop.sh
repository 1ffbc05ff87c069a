#!/usr/bin/env bash
# End the Slurm that start.sh started under FOLDER, with its jobs, and nothing else.
set -uo pipefail
folder=$(cd "${1:?usage: stop.sh FOLDER}" && pwd)
export SLURM_CONF=$folder/slurm.conf
timeout 10 scancel --user="$(id -un)" 2>/dev/null
for _ in $(seq 50); do
  [ -z "$(timeout 5 squeue --noheader 2>/dev/null)" ] && break
  sleep 0.2
done
for name in slurmd slurmctld munged; do
  pid=$(cat "$folder/$name.pid" 2>/dev/null) || continue
  # The id may be another process's by now.
  runs() { [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ]; }
  runs || continue
  kill "$pid"
  for _ in $(seq 50); do
    runs || break
    sleep 0.1
  done
  runs && kill -KILL "$pid"
done
for name in slurm.conf gres.conf; do
  [ "$(readlink "/etc/slurm/$name")" = "$folder/$name" ] && rm "/etc/slurm/$name"
done
exit 0
