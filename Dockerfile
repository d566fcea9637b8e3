# One image for the migration, the code location, the daemon and the webserver.
FROM python:3.12-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /app
COPY pyproject.toml uv.lock README.md LICENSE dagster.yaml workspace.yaml ./
COPY buffer_pipeline buffer_pipeline
# There is no git here: docker build --build-arg VERSION=$(git describe --tags) .
ARG VERSION=0.0.0+unknown
ENV SETUPTOOLS_SCM_PRETEND_VERSION=${VERSION}
RUN uv sync --locked --no-dev --no-editable --compile-bytecode

FROM python:3.12-slim
RUN useradd --create-home buffer
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY dagster.yaml workspace.yaml ./
ENV PATH=/app/.venv/bin:$PATH DAGSTER_HOME=/app PYTHONUNBUFFERED=1
# Dagster writes its runs' logs beside its settings.
RUN chown buffer /app
USER buffer
CMD ["buffer-pipeline", "--help"]
