# Moss itself. `docker build --build-arg MOSS_COMMIT="$(git rev-parse HEAD)" --tag moss .`
#
# Without a network: fill `wheels/` first, and add `--network none`. The base image must be there too; .ci/base-image
# makes one of that name where no registry can be reached.
#
#     pip download --require-hashes --dest wheels -r requirements.lock
#     sed -n '/^setuptools==/,/[^\\]$/p' requirements-dev.lock > build.lock
#     pip download --require-hashes --dest wheels -r build.lock
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY requirements.lock requirements-dev.lock wheel[s] /wheels/
# What is installed is named by its hash, also when it is only needed to build.
RUN set -eu; \
    if ls /wheels/*.whl >/dev/null 2>&1; then from="--no-index --find-links /wheels"; else from=""; fi; \
    quietly="--quiet --disable-pip-version-check --root-user-action ignore --no-cache-dir"; \
    python3 -m venv --without-pip /opt/moss; \
    python3 -m pip --python /opt/moss/bin/python install $quietly $from --require-hashes -r /wheels/requirements.lock; \
    sed -n '/^setuptools==/,/[^\\]$/p' /wheels/requirements-dev.lock >/wheels/build.lock; \
    python3 -m pip install $quietly $from --require-hashes -r /wheels/build.lock
COPY . .
RUN python3 -m pip wheel --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --wheel-dir /dist . \
    && python3 -m pip --python /opt/moss/bin/python install --quiet --disable-pip-version-check --no-index --no-deps \
        --root-user-action ignore /dist/*.whl

FROM ${BASE}
# Moss drives git; the engine it reaches through its socket, without any client program.
RUN command -v git >/dev/null \
    || (apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*)
RUN groupadd --gid 10001 moss && useradd --uid 10001 --gid moss --create-home --home-dir /home/moss moss
COPY --from=build /opt/moss /opt/moss
ENV PATH=/opt/moss/bin:$PATH PYTHONUNBUFFERED=1
USER moss
WORKDIR /home/moss
ENTRYPOINT ["moss"]
CMD ["run"]
ARG MOSS_COMMIT=unknown
ENV MOSS_COMMIT=${MOSS_COMMIT}
LABEL org.opencontainers.image.title="Moss" org.opencontainers.image.revision=${MOSS_COMMIT}
