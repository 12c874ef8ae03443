# The server and its ONNX Runtime on what they need of Debian: no shell, no package manager. Needs BuildKit.
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

# The C and C++ libraries, the certificates by which object stores are known, a user, and folders of its own. What
# scanners read of packages is where distroless images have it.
FROM debian:bookworm-slim AS system
WORKDIR /packages
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && apt-get --option APT::Sandbox::User=root download \
        base-files ca-certificates gcc-12-base libc6 libgcc-s1 libstdc++6 \
    && mkdir -p /system/var/lib/dpkg/status.d \
    && for package in *.deb; do \
        dpkg-deb --extract "$package" /system \
        && dpkg-deb --field "$package" > "/system/var/lib/dpkg/status.d/${package%%_*}" || exit 1; \
    done \
    && rm -rf /system/usr/share/ca-certificates /system/usr/share/man /system/usr/sbin/update-ca-certificates \
        /system/usr/lib/*-linux-gnu/gconv \
    && cp /etc/ssl/certs/ca-certificates.crt /system/etc/ssl/certs/ \
    && printf '%s\n' root:x:0:0:root:/root:/sbin/nologin onward:x:65532:65532:onward:/var/lib/onward:/sbin/nologin \
        > /system/etc/passwd \
    && printf '%s\n' root:x:0: onward:x:65532: > /system/etc/group \
    && install --directory --owner=65532 --group=65532 /system/var/lib/onward /system/var/cache/onward

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Dependencies stay compiled in the cache mounts; only the copied binary reaches the layer. Cargo goes by times, and
# the sources of another checkout may be older than what was compiled last: they count as new.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    find build.rs openapi.yaml proto src -type f -exec touch {} + \
    && cargo build --locked --release --bin onward \
    && cp target/release/onward /onward

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="onward" \
      org.opencontainers.image.description="An ONNX model server that loads, swaps and retires models without dropping a request" \
      org.opencontainers.image.licenses="Apache-2.0 AND MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=system /system/ /
COPY LICENSE /usr/share/doc/onward/LICENSE
COPY --from=onnxruntime /src/.onnxruntime/ /usr/local/lib/onward/
COPY --from=build /onward /usr/local/bin/onward
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    ONWARD_SERVER_LISTEN=0.0.0.0:8000 \
    ONWARD_SERVER_GRPC_LISTEN=0.0.0.0:8001 \
    ONWARD_MODELS_REPOSITORY=/models \
    ONWARD_ONNXRUNTIME_LIBRARY=/usr/local/lib/onward/libonnxruntime.so
# Relative paths begin here: that of what comes from an object store, by default. A volume keeps it.
WORKDIR /var/lib/onward
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
# Reads the same environment as the server: set the address there, not by a flag.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["onward", "health"]
ENTRYPOINT ["onward"]
CMD ["serve"]
