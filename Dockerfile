# The image of the docker work pool in prefect-docker.yaml and of docs/operations.md: docker build --tag veridical .
FROM python:3.12.11-slim-bookworm
COPY . /src
RUN pip install --no-cache-dir /src && rm -rf /src \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin veridical \
    && install --directory --owner veridical --group veridical /runs
ENV PYTHONSAFEPATH=1
USER 10001
WORKDIR /runs
VOLUME /runs
# With HEARTBEAT_FILE, the file of `veridical caption --heartbeat-file`: written in the last half hour. Otherwise: veridical runs.
HEALTHCHECK --interval=5m --timeout=30s --start-period=30m \
    CMD if [ -n "$HEARTBEAT_FILE" ]; then find "$HEARTBEAT_FILE" -mmin -30 | grep -q .; else veridical --version; fi
