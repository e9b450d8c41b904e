# syntax=docker/dockerfile:1
# The program `retouch` on Debian, for an ordinary user. Build: docker build -t retouch .
# Both bases are named by version, so that the same commit builds the same image next month; raise them together with
# rust-toolchain.toml and Debian's point releases. The build's glibc must not be newer than the runtime's.

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
# rust-toolchain.toml is left out by .dockerignore: it asks for rustfmt and clippy, which a build does not need.
COPY . .
# Crates and what was compiled of them stay in the builder's caches: a change of ours compiles ours alone.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p retouch-worker --bin retouch \
    && install -D target/release/retouch /out/retouch

FROM debian:12.12-slim
# The certificates are what the worker checks providers, brokers and databases against.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# A fixed id, so that a volume or a network folder can be made writable for it. A new named volume mounted on
# /var/lib/retouch takes its owner from the image.
RUN groupadd --gid 10001 retouch \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/retouch --shell /usr/sbin/nologin retouch \
    && install -d -o retouch -g retouch /var/lib/retouch
COPY --from=build /out/retouch /usr/local/bin/retouch
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/retouch/

LABEL org.opencontainers.image.title="Retouch" \
      org.opencontainers.image.description="Prompt-driven image edits through a paid API, and never the same edit paid twice" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"

USER 10001:10001
WORKDIR /var/lib/retouch
# Inside the container only; who may reach it is decided where the port is published.
ENV RETOUCH_HTTP=0.0.0.0:8080
EXPOSE 8080
# Finish what is under way, or hand it back.
STOPSIGNAL SIGTERM

# The program asks its own /readyz: the image holds no HTTP client. Switch it off (--no-healthcheck) for commands that end.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=4 CMD ["retouch", "health"]
ENTRYPOINT ["retouch"]
CMD ["worker"]
