# The pipeline and all of its commands in one image: no root, no shell needed, nothing written but /var/lib/gigawatch.
#   docker build -t gigawatch .
# BASE: any image with a `python3` of 3.11 or newer, its venv module, and useradd; both stages need the same one.
ARG BASE=python:3.13.9-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/gigawatch
# What changes least comes first: the packages, exactly as locked, then what builds the wheel, then the project.
COPY requirements.lock ./
RUN /opt/gigawatch/bin/pip install --require-hashes --no-deps -r requirements.lock
COPY requirements-dev.lock ./
RUN sed -n -E '/^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/,/[^\\]$/p' requirements-dev.lock > build.lock \
 && python3 -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --no-deps -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY pipeline pipeline
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/gigawatch/bin/pip install --no-deps dist/gigawatch-*.whl \
 && /opt/gigawatch/bin/gigawatch --version

FROM ${BASE}
LABEL org.opencontainers.image.title="Gigawatch" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gigawatch \
 && install -d -o gigawatch -g gigawatch -m 750 /var/lib/gigawatch \
 && install -d -o gigawatch -g gigawatch -m 755 /etc/gigawatch/keys
COPY --from=build /opt/gigawatch /opt/gigawatch
ENV PATH=/opt/gigawatch/bin:$PATH PYTHONDONTWRITEBYTECODE=1 GIGAWATCH_DATA=/var/lib/gigawatch
# By number: Kubernetes can only tell that a number is not root.
USER 10001:10001
WORKDIR /var/lib/gigawatch
VOLUME /var/lib/gigawatch
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["gigawatch", "status", "--check"]
ENTRYPOINT ["gigawatch"]
CMD ["run"]
