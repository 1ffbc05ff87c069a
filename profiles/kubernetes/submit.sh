#!/usr/bin/env bash
# Submit a job script to Kubernetes and print the name of the job.
set -euo pipefail
cores=$1 memory_mb=$2 gpus=$3 minutes=$4 script=$5
sed -e "s#CORES#$cores#" -e "s#MEMORY#$memory_mb#" -e "s#GPUS#$gpus#" -e "s#SECONDS#$((minutes * 60))#" \
  -e "s#SCRIPT#$script#" -e "s#FOLDER#$PWD#" "$(dirname "$0")/job.yaml" | kubectl create -o name -f -
