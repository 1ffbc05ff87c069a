#!/usr/bin/env bash
# Say whether a job is running, has succeeded or has failed; one that was deleted has failed.
set -euo pipefail
if ! state=$(kubectl get "$1" --ignore-not-found \
  -o jsonpath='{.metadata.name}:{range .status.conditions[?(@.status=="True")]}{.type} {end}'); then
  echo running # no answer; asked again later
  exit
fi
case $state in
  "" | *:*Failed*) echo failed ;;
  *:*Complete*) echo success ;;
  *) echo running ;;
esac
