# The collector that build.sh compiles: for machines that reach a mirror of Go
# modules but no image registry.
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
COPY --chmod=0755 otel-collector /bin/otelcol
USER 10001:10001
EXPOSE 4317 4318
ENTRYPOINT ["/bin/otelcol"]
