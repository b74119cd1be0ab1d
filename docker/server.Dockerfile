# The server: `dllm serve`. Build it from the repository's root, or with `make images`.
#
#   DEVICE            cpu, without CUDA libraries, or cuda
#   TORCH_INDEX_URL   index that torch comes from; empty is pip's own, which has CUDA builds on most machines
ARG DEVICE=cpu

FROM docker.io/library/python:3.11-slim AS base

FROM base AS requirements
ARG DEVICE
WORKDIR /build
COPY docker/requirements.py pyproject.toml constraints.txt ./
RUN python requirements.py pin torch > torch.txt \
    && if [ "$DEVICE" = cuda ]; then extras="server otel gpu"; else extras="server otel"; fi \
    && python requirements.py extras $extras > requirements.txt

# Everything but our own code. The environment gets no pip; the base image's pip fills it.
FROM base AS dependencies
ARG DEVICE
ARG TORCH_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv --without-pip /opt/dllm
COPY docker/check_torch.py ./
COPY --from=requirements /build/torch.txt ./
RUN pip --python /opt/dllm/bin/python install --no-deps ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
        --requirement torch.txt \
    && /opt/dllm/bin/python check_torch.py "$DEVICE" \
    && cd /opt/dllm/lib/python3.11/site-packages/torch \
    && rm -rf test bin/test_* bin/*Test
COPY --from=requirements /build/requirements.txt /build/constraints.txt ./
RUN pip --python /opt/dllm/bin/python install --constraint constraints.txt --requirement requirements.txt \
    && /opt/dllm/bin/python check_torch.py "$DEVICE"

FROM dependencies AS code
COPY LICENSE README.md pyproject.toml /src/
COPY kernels /src/kernels
COPY server /src/server
COPY operator/dllm_operator/__init__.py /src/operator/dllm_operator/
RUN pip --python /opt/dllm/bin/python install --no-deps --prefix /opt/code /src \
    && rm -r /opt/code/bin/dllm-operator /opt/code/lib/python3.11/site-packages/dllm_operator \
    && cp -a /opt/code/. /opt/dllm/ \
    && dllm=/opt/dllm/bin/dllm && "$dllm" --version && "$dllm" plan --device cpu

# tini is the first process: it hands signals on from its first moment, and takes in processes whose parent has ended.
FROM base AS runtime-cpu
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*

# Triton compiles its launchers with the system's C compiler when a kernel first runs.
FROM runtime-cpu AS runtime-cuda
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM runtime-${DEVICE}
RUN groupadd --gid 65532 dllm \
    && useradd --uid 65532 --gid dllm --key UID_MAX=65532 --no-log-init --no-create-home \
        --home-dir /tmp --shell /usr/sbin/nologin dllm \
    && install --directory --owner=dllm --group=dllm /var/cache/dllm
# Only /tmp and /var/cache/dllm are written to. USER and LOGNAME serve user ids that have no name.
ENV PATH=/opt/dllm/bin:$PATH \
    HOME=/tmp \
    TMPDIR=/tmp \
    USER=dllm \
    LOGNAME=dllm \
    HF_HOME=/var/cache/dllm/huggingface \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/dllm/inductor \
    TRITON_CACHE_DIR=/var/cache/dllm/triton \
    XDG_CACHE_HOME=/var/cache/dllm \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=dependencies /opt/dllm /opt/dllm
COPY --from=code /opt/code /opt/dllm
ARG VERSION=dev
ARG REVISION=
LABEL org.opencontainers.image.title="dllm-server" \
      org.opencontainers.image.description="OpenAI-compatible server of diffusion language models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
USER 65532:65532
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "dllm"]
CMD ["serve"]
