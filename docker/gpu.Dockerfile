# The workflow on NVIDIA GPUs. From the folder of the Snakefile:
#
#   docker build -f docker/gpu.Dockerfile -t pdswitch:gpu .
#   docker run --rm --gpus all --ipc host -v "$PWD/results:/pdswitch/results" pdswitch:gpu
#
# This file has not been built: no Docker daemon was at hand when it was written.
FROM python:3.11-slim-trixie

RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /pdswitch
# The packages are a layer of their own: an edit of the sources does not install them again.
COPY pyproject.toml README.md LICENSE Makefile ./
COPY envs envs
COPY workflow/pdswitch/__init__.py workflow/pdswitch/
# The driver and nvidia-smi come from the host, through the NVIDIA Container Toolkit.
ENV DEVICE_KIND=gpu NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN make setup
COPY . .

CMD ["make", "run"]
