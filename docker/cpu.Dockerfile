# The workflow on a CPU. From the folder of the Snakefile:
#
#   docker build -f docker/cpu.Dockerfile -t pdswitch:cpu .
#   docker run --rm -v "$PWD/results:/pdswitch/results" pdswitch:cpu
#
# This file has not been built: no Docker daemon was at hand when it was written.
FROM python:3.11-slim-trixie

RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git libnuma1 make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /pdswitch
# The packages are a layer of their own: an edit of the sources does not install them again.
COPY pyproject.toml README.md LICENSE Makefile ./
COPY envs envs
COPY workflow/pdswitch/__init__.py workflow/pdswitch/
ENV DEVICE_KIND=cpu
RUN make setup
COPY . .

CMD ["make", "run"]
