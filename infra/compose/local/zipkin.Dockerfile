# Zipkin from its jar: for machines that reach a mirror of Maven's artifacts but no image registry.
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE} AS java
# The packages' scripts link manuals into a folder that slim images lack.  The mirror determines the
# version.
# hadolint ignore=DL3008
RUN mkdir -p /usr/share/man/man1 \
 && apt-get update \
 && apt-get install -y --no-install-recommends openjdk-17-jre-headless \
 && rm -rf /var/lib/apt/lists/*

FROM java AS jar
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends maven \
 && mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
        -Dartifact=io.zipkin:zipkin-server:3.5.1:jar:slim -DoutputDirectory=/zipkin \
        -Dmdep.stripVersion=true
WORKDIR /zipkin
RUN echo "7956e7f2c64b7073e1362b81e697fceb5fe61e121ad3cb48d545461026964b0f  zipkin-server-slim.jar" \
        > sums \
 && sha256sum --check --strict sums

FROM java
COPY --from=jar /zipkin/zipkin-server-slim.jar /zipkin/zipkin.jar
USER 1000:1000
EXPOSE 9411
# JAVA_OPTS as in the official image
ENTRYPOINT ["sh", "-c", "exec java ${JAVA_OPTS:-} -jar /zipkin/zipkin.jar"]
