# An image with arcface-plus for NVIDIA GPUs and CPUs: torch's wheels bring CUDA, the host its driver.
#
#   docker build -t arcface_plus .
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/work" --user "$(id -u):$(id -g)" \
#     arcface_plus train quickstart
#
# Loader processes share batches through /dev/shm, of which docker gives 64 MB unless asked for more.
# Docker is absent where this is developed: the image was not built there; tests/test_installed.py
# builds the same wheel and checks what this file copies and asks for.
FROM python:3.12-slim

ARG EXTRAS=quickstart,report,onnx,search
# Counted from git's tags, which are not copied: docker build --build-arg VERSION=…
ARG VERSION=0.1.1.dev0

RUN apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /source
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY configs configs
COPY arcface_plus arcface_plus
RUN SETUPTOOLS_SCM_PRETEND_VERSION=$VERSION pip install --no-cache-dir ".[$EXTRAS]" \
    && rm -rf /source

RUN useradd --create-home user
ENV HOME=/tmp
USER user
WORKDIR /work
ENTRYPOINT ["arcface-plus"]
CMD ["--help"]
