# Redis from Debian's packages: for machines that reach a mirror of Debian but no image registry.
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
# The mirror determines the version.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends redis-server \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /data
USER 65532:65532
EXPOSE 6379
CMD ["redis-server"]
