# Redis from Debian's packages: for machines that can reach a mirror of Debian but no registry.
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
# Which version it is, the mirror says.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends redis-server \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /data
USER 65532:65532
EXPOSE 6379
CMD ["redis-server"]
