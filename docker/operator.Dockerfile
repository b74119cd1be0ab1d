# The operator: `dllm-operator run`. Build it from the repository's root, or with `make images`.
FROM docker.io/library/python:3.11-slim AS base

FROM base AS requirements
WORKDIR /build
COPY docker/requirements.py pyproject.toml ./
RUN python requirements.py extras operator otel > requirements.txt

# Everything but our own code. The kubernetes package has code for every kind and version there is, twice. The
# synchronous client's calls are left out, and of its 125 MB only what is imported is compiled.
FROM base AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv --without-pip /opt/dllm
COPY constraints.txt ./
COPY --from=requirements /build/requirements.txt ./
RUN pip --python /opt/dllm/bin/python install --no-compile --constraint constraints.txt --requirement requirements.txt \
    && rm -r /opt/dllm/lib/python3.11/site-packages/kubernetes/client/api \
    && /opt/dllm/bin/python -m compileall -q -x '/kubernetes/(aio/)?client/' /opt/dllm/lib \
    && /opt/dllm/bin/python -c "import kopf, kubernetes.aio.client, kubernetes.aio.config, kubernetes.aio.dynamic"

FROM dependencies AS code
COPY LICENSE README.md pyproject.toml /src/
COPY operator /src/operator
COPY server/dllm_server/*.py server/dllm_server/py.typed /src/server/dllm_server/
COPY server/dllm_server/settings /src/server/dllm_server/settings
COPY kernels/dllm_kernels/__init__.py /src/kernels/dllm_kernels/
RUN pip --python /opt/dllm/bin/python install --no-deps --prefix /opt/code /src \
    && rm -r /opt/code/bin/dllm /opt/code/lib/python3.11/site-packages/dllm_kernels \
    && cp -a /opt/code/. /opt/dllm/
COPY docker/check_operator.py ./
RUN /opt/dllm/bin/python check_operator.py && /opt/dllm/bin/dllm-operator crd > /dev/null

# tini is the first process: it hands signals on from its first moment.
FROM base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 65532 dllm \
    && useradd --uid 65532 --gid dllm --key UID_MAX=65532 --no-log-init --no-create-home \
        --home-dir /tmp --shell /usr/sbin/nologin dllm
ENV PATH=/opt/dllm/bin:$PATH \
    HOME=/tmp \
    TMPDIR=/tmp \
    USER=dllm \
    LOGNAME=dllm \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=dependencies /opt/dllm /opt/dllm
COPY --from=code /opt/code /opt/dllm
ARG VERSION=dev
ARG REVISION=
LABEL org.opencontainers.image.title="dllm-operator" \
      org.opencontainers.image.description="Kubernetes operator of DLLMDeployment resources" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "dllm-operator"]
CMD ["run"]
