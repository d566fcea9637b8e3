# One image for the migration, the code location, the daemon and the webservers: docker-compose.yml.
# A digest behind a tag fixes it for good: --build-arg PYTHON=python:3.12.12-slim-bookworm@sha256:…
ARG PYTHON=python:3.12.12-slim-bookworm
ARG UV=ghcr.io/astral-sh/uv:0.13.0

FROM ${UV} AS uv

FROM ${PYTHON} AS build
COPY --from=uv /uv /usr/local/bin/uv
WORKDIR /app
# What the lock file names, by its hashes; then the wheel. No extra and no development group: neither the
# embedded database nor a test tool gets in.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --no-install-project --compile-bytecode --link-mode=copy
COPY README.md LICENSE dagster.yaml workspace.yaml ./
COPY buffer_pipeline buffer_pipeline
# There is no git here: docker build --build-arg VERSION=$(git describe --tags) .
ARG VERSION=0.0.0+unknown
ENV SETUPTOOLS_SCM_PRETEND_VERSION=${VERSION}
RUN uv build --wheel --out-dir dist \
 && uv pip install --python .venv --no-deps --compile-bytecode dist/*.whl

FROM ${PYTHON}
ARG VERSION=0.0.0+unknown
LABEL org.opencontainers.image.title="buffer-pipeline" \
      org.opencontainers.image.description="The payment buffer of a marketplace, on Dagster and PostgreSQL" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# All that Dagster writes, logs of runs and what they hand on, is below storage.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp buffer \
 && install --directory --owner buffer /app/storage
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY dagster.yaml deploy/workspace.yaml deploy/with-secrets ./
ENV PATH=/app/.venv/bin:$PATH DAGSTER_HOME=/app HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 4000
ENTRYPOINT ["/app/with-secrets"]
CMD ["dagster", "api", "grpc", "--host=0.0.0.0", "--port=4000", "--module-name=buffer_pipeline.orchestration.definitions", "--attribute=defs", "--location-name=buffer_pipeline"]
HEALTHCHECK --interval=30s --timeout=20s --start-period=2m --retries=3 \
  CMD ["dagster", "api", "grpc-health-check", "--host=127.0.0.1", "--port=4000"]
