# A collector as build.sh compiled it: for machines that can reach a mirror of Go's modules but no
# registry.
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
COPY --chmod=0755 otel-collector /bin/otelcol
USER 10001:10001
EXPOSE 4317 4318
ENTRYPOINT ["/bin/otelcol"]
