# syntax=docker/dockerfile:1
# The program `retouch` on Debian, for an ordinary user. Build: docker build -t retouch .

FROM rust:1.95-bookworm AS build
WORKDIR /src
# rust-toolchain.toml is left out by .dockerignore: it asks for rustfmt and clippy, which a build does not need.
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p retouch-worker --bin retouch \
    && install -D target/release/retouch /out/retouch

FROM debian:bookworm-slim
# The certificates are what the worker checks providers, brokers and databases against.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# A fixed id, so that a volume or a network folder can be made writable for it. A new named volume mounted on
# /var/lib/retouch/blobs takes its owner from the image.
RUN groupadd --gid 10001 retouch \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin retouch \
    && install -d -o retouch -g retouch /var/lib/retouch/blobs
COPY --from=build /out/retouch /usr/local/bin/retouch
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/retouch/

USER 10001:10001
WORKDIR /var/lib/retouch
# Inside the container only; who may reach it is decided where the port is published.
ENV RETOUCH_HTTP=0.0.0.0:8080
EXPOSE 8080

# No HEALTHCHECK here: the image also runs commands that end (migrate, edit, dead) and have no HTTP port.
# docker-compose.yml has one for its workers.
ENTRYPOINT ["retouch"]
CMD ["worker"]
