# syntax=docker/dockerfile:1

# docker build -t vanne .
# docker run -p 8080:8080 -v "$PWD/vanne.toml:/etc/vanne/vanne.toml:ro" vanne

FROM rust:1-bookworm AS build

# The TLS library is built from source (perl, make), zlib-ng by cmake. Versions are the base image's to choose: pinning them would only
# break the build when Debian moves one on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential cmake make perl pkg-config \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build
COPY . .

# Dependencies and what they were built into stay in caches of the builder, so that a change of our own code builds our own code alone.
# A cache is not part of the image: the program is copied out of it. The roots are touched because cargo goes by times: sources older
# than the last build, of another branch say, would pass for built, and the image would hold the other branch's program.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target,sharing=locked \
    touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin vanne \
    && cp target/release/vanne /usr/local/bin/vanne

# No shell, no package manager, not root; the C library is the one the program was linked with.
FROM gcr.io/distroless/cc-debian12:nonroot

LABEL org.opencontainers.image.title="vanne" \
      org.opencontainers.image.description="An edge gateway: balancing, a shared HTTP cache, and a guard for your instances' pools" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /usr/local/bin/vanne /usr/local/bin/vanne
COPY LICENSE /usr/share/doc/vanne/LICENSE

# 8080 is the clients', 9180 the operator's: /metrics, /healthz, /readyz. To be scraped from outside of the container the latter must listen
# on 0.0.0.0, and must not be published to clients.
EXPOSE 8080 9180

# No curl here: the program asks itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/vanne", "healthcheck"]

# Drains: give it longer than its drain_delay and drain_timeout together (`docker stop --time`).
STOPSIGNAL SIGTERM

ENTRYPOINT ["/usr/local/bin/vanne"]
CMD ["run", "-c", "/etc/vanne/vanne.toml"]
