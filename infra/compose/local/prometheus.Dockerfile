# Prometheus as build.sh compiles it: for machines that reach a mirror of Go
# modules but no image registry.  It has no web pages; queries, rules and the receiver are complete.
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
COPY --chmod=0755 prometheus /bin/prometheus
RUN install -d -o 65534 -g 65534 /prometheus
WORKDIR /prometheus
USER 65534:65534
EXPOSE 9090
ENTRYPOINT ["/bin/prometheus"]
