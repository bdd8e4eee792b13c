# One image for all functions (target `functions`, the default) and one for tools (target `tools`):
# migrations, the payment simulator, the broker, end-to-end tests.  The base image is an argument, so
# that a mirror or a digest can be used:
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:... .
ARG PYTHON_IMAGE=python:3.13-slim

# ---------------------------------------------------------------- packages
FROM ${PYTHON_IMAGE} AS packages
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
COPY requirements requirements
# Only wheels with the locked hashes; nothing is built, so no compiler is needed.
RUN pip install --require-hashes --only-binary=:all: --no-compile --prefix=/functions \
        -r requirements/functions.txt \
 && pip install --require-hashes --only-binary=:all: --no-compile --prefix=/tools \
        -r requirements/tools.txt \
 # .pth files for namespaces that Python finds without them, and unused commands
 && rm -rf /functions/bin /tools/bin \
        /functions/lib/python3*/site-packages/*-nspkg.pth \
        /tools/lib/python3*/site-packages/*-nspkg.pth
COPY events /app/events
COPY shop /app/shop
COPY functions /app/functions
# A process on a read-only root would compile all modules at every start.
RUN --mount=type=bind,source=infra/image/compile.py,target=/mnt/compile.py \
    python /mnt/compile.py /functions /tools /app

# ---------------------------------------------------------------- pages of the web applications
FROM ${PYTHON_IMAGE} AS web
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
# Node.js is a wheel; neither image has it.
COPY requirements/web.txt requirements/
RUN pip install --require-hashes --only-binary=:all: -r requirements/web.txt
COPY web web
COPY tools/web.py tools/
RUN python tools/web.py build

# ---------------------------------------------------------------- base of both images
FROM ${PYTHON_IMAGE} AS base
# Official base images have no bytecode of the standard library.  pip and setuptools are removed:
# nothing is installed later, and setuptools' .pth file slows every start.
RUN --mount=type=bind,source=infra/image/compile.py,target=/mnt/compile.py \
    python /mnt/compile.py --standard-library \
 && rm -rf /usr/local/bin/pip* /usr/local/bin/idle* /usr/local/bin/pydoc* \
        /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip \
        /usr/local/lib/python3*/idlelib /usr/local/lib/python3*/lib2to3 \
        /usr/local/lib/python3*/tkinter /usr/local/lib/python3*/turtledemo \
 && groupadd --gid 65532 shop \
 && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin shop
WORKDIR /app
# All bytecode exists and the root may be read-only: Python must not write bytecode.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG SOURCE=unknown
# printed by shop --version
ENV SHOP_VERSION=${VERSION}
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.vendor="msa-shop" \
      org.opencontainers.image.version="${VERSION}"

# ---------------------------------------------------------------- tools
FROM base AS tools
COPY --from=packages /tools /usr/local
COPY --from=packages /app /app
COPY --from=web /build/functions/web/pages /app/functions/web/pages
COPY tools /app/tools
COPY --chmod=0755 infra/image/shop /usr/local/bin/shop
RUN --mount=type=bind,source=infra/image/compile.py,target=/mnt/compile.py \
    python /mnt/compile.py /app/tools \
 # a volume of the broker or the payment simulator takes over this owner
 && install -d -o 65532 -g 65532 -m 0700 /data
LABEL org.opencontainers.image.title="msa-shop tools" \
      org.opencontainers.image.description="Migrations, payment simulator, checks, end-to-end tests."
USER 65532:65532
ENTRYPOINT ["shop"]
CMD ["--help"]

# ---------------------------------------------------------------- functions
FROM base AS functions
COPY --from=packages /functions /usr/local
COPY --from=packages /app /app
COPY --from=web /build/functions/web/pages /app/functions/web/pages
# The CronJobs of the clock run it: one signed tick.
COPY tools/__init__.py tools/tick.py /app/tools/
LABEL org.opencontainers.image.title="msa-shop functions" \
      org.opencontainers.image.description="All functions of the shop; the argument selects one."
USER 65532:65532
EXPOSE 8080
# -I -S: the probe imports no package, and starts in a third of the time.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-I", "-S", "/app/shop/runtime/probe.py"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "shop.runtime"]
# No CMD: without an argument FUNCTION_NAME selects the function, as on OpenFaaS.
