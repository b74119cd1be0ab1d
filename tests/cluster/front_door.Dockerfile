# HAProxy for clusters that reach no registry; everywhere else the chart's image is the project's own.
FROM docker.io/library/python:3.11-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends haproxy \
    && rm -rf /var/lib/apt/lists/*
STOPSIGNAL SIGUSR1
