# Prometheus as build.sh compiled it: for machines that can reach a mirror of Go's modules but no
# registry.  Without its pages; queries, rules and the receiver are whole.
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
COPY --chmod=0755 prometheus /bin/prometheus
RUN install -d -o 65534 -g 65534 /prometheus
WORKDIR /prometheus
USER 65534:65534
EXPOSE 9090
ENTRYPOINT ["/bin/prometheus"]
