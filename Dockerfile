# The server and its ONNX Runtime on a bare Debian. Needs BuildKit.
#
# Models are no part of the image: mount a repository at /models. The image listens on all
# interfaces, so the server starts only once its user says who may change models; see
# docker-compose.yml for the one setting that is left out here on purpose.

FROM debian:bookworm-slim AS onnxruntime
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY scripts/fetch_onnxruntime.py scripts/
RUN python3 scripts/fetch_onnxruntime.py

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Dependencies stay compiled in the cache mounts; only the copied binary reaches the layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --release --bin onward \
    && cp target/release/onward /onward

FROM debian:bookworm-slim
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="onward" \
      org.opencontainers.image.description="An ONNX model server that loads, swaps and retires models without dropping a request" \
      org.opencontainers.image.licenses="Apache-2.0 AND MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY LICENSE /usr/share/doc/onward/LICENSE
COPY --from=onnxruntime /src/.onnxruntime/ /usr/local/lib/onward/
COPY --from=build /onward /usr/local/bin/onward
ENV ONWARD_SERVER_LISTEN=0.0.0.0:8000 \
    ONWARD_SERVER_GRPC_LISTEN=0.0.0.0:8001 \
    ONWARD_MODELS_REPOSITORY=/models \
    ONWARD_ONNXRUNTIME_LIBRARY=/usr/local/lib/onward/libonnxruntime.so
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
# Reads the same environment as the server: set the address there, not by a flag.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["onward", "health"]
ENTRYPOINT ["onward"]
CMD ["serve"]
