# One image for the migration, the code location, the daemon and the webservers: docker-compose.yml.
# To pin the base image for good, add its digest: --build-arg PYTHON=python:3.12.12-slim-bookworm@sha256:…
ARG PYTHON=python:3.12.12-slim-bookworm
ARG UV=ghcr.io/astral-sh/uv:0.13.0

FROM ${UV} AS uv

FROM ${PYTHON} AS build
COPY --from=uv /uv /usr/local/bin/uv
WORKDIR /app
# First the packages of the lock file, checked by their hashes; then the wheel. Only the extras of the services are
# installed, without the development group, so the image has no embedded database and no test tools. It also has no
# uvloop: the webserver runs on asyncio's own loop.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --extra dagster --extra metrics --extra alerts --extra payouts \
    --no-install-project --link-mode=copy --no-install-package uvloop
# Remove tests and source maps of the packages and the translated names of countries, and strip debug symbols. Only
# these two packages are stripped, because wheels that bundle their own libraries break when they are stripped.
RUN apt-get update && apt-get install --yes --no-install-recommends binutils \
 && cd .venv/lib/python3*/site-packages \
 && find sqlalchemy aiohttp -name '*.so' -exec strip --strip-unneeded {} + \
 && find . -type d -name tests -prune -exec rm -r {} + \
 && find . -name '*.map' -delete \
 && rm -r pycountry/locales
COPY README.md LICENSE dagster.yaml workspace.yaml ./
COPY buffer_pipeline buffer_pipeline
COPY buffer_pipeline_start buffer_pipeline_start
# The build has no git, so pass the version: docker build --build-arg VERSION=$(git describe --tags --always) .
# Between two tags that prints 1.2.3-4-g5e6f7a8, which becomes 1.2.3+4.g5e6f7a8 for Python; without a tag 0+g5e6f7a8.
ARG VERSION
RUN : "${VERSION:?is empty: docs/compose.md begins the command with it}" \
 && version=$(echo "$VERSION" | sed -E 's/^v//; s/-([0-9]+)-(g[0-9a-f]+)$/+\1.\2/; s/^[0-9a-f]{7,40}$/0+g&/') \
 && uv version --frozen "$version" \
 && uv build --wheel --out-dir dist \
 && uv pip install --python .venv --no-deps dist/*.whl
# Compile only the modules that the services load, because bytecode is as large as the sources.
RUN .venv/bin/python -c "import alembic.command, apprise, dagster._daemon.cli, dagster_webserver.app, dagster_webserver.cli, \
    buffer_pipeline.cli.app, buffer_pipeline.reports.daily, buffer_pipeline.orchestration.definitions, \
    lxml.etree, schwifty, uvicorn.protocols.http.auto, uvicorn.protocols.websockets.auto" \
 && .venv/bin/python -m compileall -q .venv/lib/python3*/site-packages/buffer_pipeline*

FROM ${PYTHON}
ARG VERSION
LABEL org.opencontainers.image.title="buffer-pipeline" \
      org.opencontainers.image.description="The payment buffer of a marketplace, on Dagster and PostgreSQL" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# Everything that Dagster writes, logs and outputs of runs, is in the folder storage.
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
