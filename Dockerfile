# One image for the migration, the code location, the daemon and the webservers: docker-compose.yml.
# A digest behind a tag fixes it for good: --build-arg PYTHON=python:3.12.12-slim-bookworm@sha256:…
ARG PYTHON=python:3.12.12-slim-bookworm
ARG UV=ghcr.io/astral-sh/uv:0.13.0

FROM ${UV} AS uv

FROM ${PYTHON} AS build
COPY --from=uv /uv /usr/local/bin/uv
WORKDIR /app
# What the lock file names, by its hashes; then the wheel. No extra and no development group: neither the
# embedded database nor a test tool gets in. Nor does what the webserver can do without: it runs on asyncio's own loop.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --no-install-project --link-mode=copy --no-install-package uvloop
# Others' tests, source maps and debug symbols are removed. Only these are stripped: wheels that bundle libraries of
# their own break when they are.
RUN apt-get update && apt-get install --yes --no-install-recommends binutils \
 && cd .venv/lib/python3*/site-packages \
 && find sqlalchemy fontTools aiohttp kiwisolver -name '*.so' -exec strip --strip-unneeded {} + \
 && find . -type d -name tests -prune -exec rm -r {} + \
 && find . -name '*.map' -delete
COPY README.md LICENSE dagster.yaml workspace.yaml ./
COPY buffer_pipeline buffer_pipeline
COPY buffer_pipeline_start buffer_pipeline_start
# There is no git here: docker build --build-arg VERSION=$(git describe --tags --always) .
# What that says between two tags, 1.2.3-4-g5e6f7a8, is 1.2.3+4.g5e6f7a8 in Python's terms; without a tag 0+g5e6f7a8.
ARG VERSION
RUN : "${VERSION:?is empty: docs/compose.md begins the command with it}" \
 && version=$(echo "$VERSION" | sed -E 's/^v//; s/-([0-9]+)-(g[0-9a-f]+)$/+\1.\2/; s/^[0-9a-f]{7,40}$/0+g&/') \
 && SETUPTOOLS_SCM_PRETEND_VERSION=$version uv build --wheel --out-dir dist \
 && uv pip install --python .venv --no-deps dist/*.whl
# Bytecode of what the services load, and of nothing else: it weighs as much as the sources.
RUN .venv/bin/python -c "import alembic.command, apprise, dagster._daemon.cli, dagster_webserver.app, dagster_webserver.cli, \
    buffer_pipeline.cli.app, buffer_pipeline.daily_report.plots, buffer_pipeline.orchestration.definitions, \
    uvicorn.protocols.http.auto, uvicorn.protocols.websockets.auto" \
 && .venv/bin/python -m compileall -q .venv/lib/python3*/site-packages/buffer_pipeline*

FROM ${PYTHON}
ARG VERSION
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
  CMD ["python", "-m", "buffer_pipeline_start.probe", "code"]
