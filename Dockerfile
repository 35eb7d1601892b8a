# syntax=docker/dockerfile:1

# The binary is built on the same Debian release on which it runs, so both have the same glibc.
FROM rust:1.95-bookworm AS build
# The metric store links Debian's RocksDB. Without the two variables cargo would compile its own,
# which takes some twenty minutes. libclang reads the headers of RocksDB.
RUN apt-get update \
    && apt-get install -y --no-install-recommends librocksdb-dev libclang-14-dev \
    && rm -rf /var/lib/apt/lists/*
ENV ROCKSDB_INCLUDE_DIR=/usr/include
WORKDIR /src
COPY . .
# The caches are not part of the image; the binary is copied out of the target cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    ROCKSDB_LIB_DIR="/usr/lib/$(gcc -print-multiarch)" cargo build --release --locked --bin stormkeeper \
    && install -m 0755 target/release/stormkeeper /usr/local/bin/stormkeeper

FROM debian:bookworm-slim
# python3 runs the components of Python topologies and the health checks, and openssl makes the
# certificates of docker-compose.secure.yml. The binary links librocksdb7.8.
RUN apt-get update \
    && apt-get install -y --no-install-recommends openssl python3 librocksdb7.8 \
    && rm -rf /var/lib/apt/lists/*
# A fixed number, so that the owner of a volume's files is known outside of the container.
RUN groupadd --gid 10001 stormkeeper \
    && useradd --uid 10001 --gid stormkeeper --home-dir /var/lib/stormkeeper --create-home stormkeeper
COPY --from=build /usr/local/bin/stormkeeper /usr/local/bin/stormkeeper
COPY --from=build /src/scripts/make-certificates /usr/local/bin/make-certificates
COPY --from=build /src/examples /usr/share/stormkeeper/examples

USER stormkeeper
WORKDIR /var/lib/stormkeeper
# storm.local.dir: blobs, the supervisor's ledger, workers' directories and logs.
VOLUME /var/lib/stormkeeper
EXPOSE 8080 6700-6703
ENTRYPOINT ["stormkeeper"]
CMD ["--help"]
