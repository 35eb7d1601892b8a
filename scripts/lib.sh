# shellcheck shell=bash
# Functions shared by the scripts: set-up of this machine, and processes that are started, awaited
# and stopped. Sourced, never run. Nothing here touches a process that it did not start.

# Without this, a command substitution would continue after a failure inside it.
shopt -s inherit_errexit

STORMKEEPER_HOME="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
STORMKEEPER_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/stormkeeper"

# Outside of the checkout, so that a fresh clone reuses compiled crates.
export CARGO_TARGET_DIR="${STORMKEEPER_TARGET_DIR:-$STORMKEEPER_CACHE/target}"
# A binary that the caller names is used as it is, and nothing is built.
BINARY_IS_GIVEN="${STORMKEEPER_BINARY:+yes}"
STORMKEEPER_BINARY="${STORMKEEPER_BINARY:-$CARGO_TARGET_DIR/release/stormkeeper}"

ZOOKEEPER_JAR=/usr/share/java/zookeeper.jar
# The package has no logging binding; without slf4j-simple the server logs nothing.
ZOOKEEPER_CLASS_PATH="$ZOOKEEPER_JAR:/usr/share/java/slf4j-simple.jar"

# Pinned: an integration test runs an unmodified component of this library.
PYSTORM_VERSION=3.1.4
PYSTORM_PACKAGES=("pystorm==$PYSTORM_VERSION" simplejson==4.3.0 six==1.17.0)

# Pinned: an integration test reads a cluster with it.
FLINK_CLIENT_VERSION=1.0.8
FLINK_CLIENT_PACKAGES=(
  "flink-rest-client==$FLINK_CLIENT_VERSION" requests==2.34.2 urllib3==2.8.0 idna==3.20 certifi==2026.10.19.post1
  charset-normalizer==3.5.3 importlib_resources==7.1.0
)

# Pinned: an integration test runs this client of Storm's API unmodified. It needs a setuptools
# from before 66, whose pkg_resources takes `0.9.2-incubating` for a version.
STREAMPARSE_VERSION=5.0.1
STREAMPARSE_PACKAGES=(
  "streamparse==$STREAMPARSE_VERSION" "${PYSTORM_PACKAGES[@]}" setuptools==65.7.0 cython==3.3.1 jinja2==3.1.6
  Fabric39==1.15.3.post2 requests==2.34.2 ruamel.yaml==0.19.1 texttable==1.7.2 thriftpy2==0.7.1
)

# Pinned: an integration test generates requests from the OpenAPI documents with it.
SCHEMATHESIS_VERSION=4.32.5
SCHEMATHESIS_PACKAGES=(
  "schemathesis==$SCHEMATHESIS_VERSION" anyio==4.16.0 certifi==2026.10.19.post1 charset-normalizer==3.5.3
  click==8.5.1 graphql-core==3.3.2 harfile==0.6.0 hypothesis==6.170.17 hypothesis-graphql==0.13.5 idna==3.20
  iniconfig==2.3.1 jsonschema_rs==0.60.3 markdown-it-py==4.3.0 MarkupSafe==3.0.4 mdurl==0.1.2 packaging==26.4
  pluggy==1.7.0 Pygments==2.21.0 pyrate-limiter==4.5.1 pytest==9.2.0 PyYAML==6.0.4 requests==2.34.2 rich==15.0.0
  sortedcontainers==2.4.0 typing_extensions==4.16.0 urllib3==2.8.0 Werkzeug==3.1.9
)

# Pinned: an integration test checks that the OpenAPI documents are valid with it.
OPENAPI_VALIDATOR_VERSION=0.9.0
OPENAPI_VALIDATOR_PACKAGES=(
  "openapi-spec-validator==$OPENAPI_VALIDATOR_VERSION" annotated-types==0.8.0 attrs==26.1.0 jsonschema==4.26.0
  jsonschema-path==0.5.0 jsonschema-specifications==2025.9.1 lazy-object-proxy==1.13.0
  openapi-schema-validator==0.9.0 pathable==0.6.0 pydantic==2.14.4 pydantic-core==2.50.5
  pydantic-settings==2.16.3 python-dotenv==1.2.4 PyYAML==6.0.4 referencing==0.37.0 rfc3339-validator==0.1.4
  rpds-py==2026.9.1 six==1.17.0 typing_extensions==4.16.0 typing-inspection==0.4.5
)

# ----------------------------------------------------------------- messages

say() { printf '%s\n' "$*" >&2; }

die() {
  say "$(basename "$0"): $*"
  exit 1
}

# step TITLE: begins a numbered step.
step() {
  STEP_NUMBER=$((${STEP_NUMBER:-0} + 1))
  STEP_STARTED=$SECONDS
  say ""
  say "$STEP_NUMBER. $*"
}

# step_done TEXT: ends the step and prints its duration.
step_done() { say "   $* ($((SECONDS - STEP_STARTED)) s)"; }

# in_step LOG COMMAND...: runs a command with its output in LOG, and prints the end of LOG on
# failure.
in_step() {
  local log=$1 status=0
  shift
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 || status=$?
  if ((status != 0)); then
    say "   failed with status $status: $*"
    say "   the end of $log:"
    tail -n 60 "$log" | sed 's/^/   | /' >&2
    exit 1
  fi
}

# ---------------------------------------------------------------- packages

installed() {
  [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# ensure_packages PACKAGE...: installs missing packages, or prints the command and exits with 3.
ensure_packages() {
  local package missing=()
  command -v dpkg-query >/dev/null ||
    die "these scripts install packages on Debian-based systems only; install manually: $*"
  for package in "$@"; do
    installed "$package" || missing+=("$package")
  done
  ((${#missing[@]} == 0)) && return
  if ((EUID != 0)); then
    say "Some packages are missing. Run this, then try again:"
    say ""
    say "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
    exit 3
  fi
  say "   installing ${missing[*]}"
  in_step "$STORMKEEPER_CACHE/logs/apt.log" apt_install "${missing[@]}"
}

# Installs without starting the services of the packages: the tests and scripts start their own. The file
# is Debian's way to say so; one that is there already is left alone.
apt_install() (
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update
  # dpkg sometimes fails on a temporary file; a second attempt succeeds.
  apt-get install -y --no-install-recommends "$@" ||
    apt-get install -y --no-install-recommends "$@"
)

# Packages that the build links and the examples need.
ensure_build_packages() {
  local packages=(g++ curl python3 librocksdb-dev)
  if ! have_matching_libclang; then
    local version
    version="$(default_libclang)"
    packages+=("libclang1-$version" "libclang-common-$version-dev")
  fi
  ensure_packages "${packages[@]}"
  set_rocksdb_environment
}

ensure_zookeeper_package() {
  ensure_packages zookeeper libslf4j-java
  command -v java >/dev/null || die "the package zookeeper is installed, but there is no java in PATH"
  [[ -r $ZOOKEEPER_JAR ]] || die "the package zookeeper is installed, but $ZOOKEEPER_JAR is missing"
}

# bindgen needs the library and the compiler's own headers, of the same version.
have_matching_libclang() {
  local package
  for package in $(dpkg-query -W -f '${binary:Package} ${db:Status-Status}\n' 'libclang1-[0-9]*' 2>/dev/null |
    awk '$2 == "installed" { sub(/:.*/, "", $1); print $1 }'); do
    installed "libclang-common-${package#libclang1-}-dev" && return
  done
  return 1
}

# Default version of libclang in this distribution (14 on bookworm).
default_libclang() {
  local version
  if ((EUID == 0)) && ! apt-cache show libclang1 >/dev/null 2>&1; then
    in_step "$STORMKEEPER_CACHE/logs/apt.log" apt-get update
  fi
  version="$(apt-cache depends libclang1 2>/dev/null | sed -n 's/.*Depends: libclang1-\([0-9]*\).*/\1/p' | head -n 1 || true)"
  # Without package lists, assume bookworm's: the command shown to the user begins with an update.
  printf '%s' "${version:-14}"
}

# The crate rocksdb 0.20 supports RocksDB 7.8 only; with any other version cargo compiles its own.
set_rocksdb_environment() {
  local library_directory version
  version="$(dpkg-query -W -f '${Version}' librocksdb-dev)"
  if [[ $version != 7.8.* ]]; then
    say "   librocksdb-dev is $version, not 7.8: the bundled RocksDB is compiled instead, which takes half an hour on two cores"
    return
  fi
  library_directory="/usr/lib/$(multiarch)"
  [[ -e $library_directory/librocksdb.so ]] || die "librocksdb-dev is installed, but $library_directory/librocksdb.so is missing"
  export ROCKSDB_LIB_DIR="$library_directory" ROCKSDB_INCLUDE_DIR=/usr/include
}

multiarch() {
  dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch
}

ensure_rust() {
  command -v cargo >/dev/null || {
    # A login shell has it in PATH; a cron job or a CI step may not.
    local rustup_bin="${CARGO_HOME:-$HOME/.cargo}/bin"
    [[ -x $rustup_bin/cargo ]] && PATH="$rustup_bin:$PATH"
  }
  command -v cargo >/dev/null || {
    say "Rust is missing: there is no cargo in PATH. Install it with rustup (https://rustup.rs), then try again."
    exit 3
  }
  use_pinned_toolchain
}

# The exact version that rust-toolchain.toml names.
pinned_rust() { sed -n 's/^channel = "\(.*\)"$/\1/p' "$STORMKEEPER_HOME/rust-toolchain.toml"; }

# toolchain_of VERSION: prints the installed toolchain that has this version of rustc: "1.90" is any
# 1.90.x. It may have another name, as "stable" has.
toolchain_of() {
  local toolchain
  command -v rustup >/dev/null || return 1
  for toolchain in $(rustup toolchain list | cut -d ' ' -f 1); do
    if [[ "$(RUSTUP_TOOLCHAIN=$toolchain rustc --version 2>/dev/null) " == "rustc $1"[.\ ]* ]]; then
      printf '%s' "$toolchain"
      return
    fi
  done
  return 1
}

# Nothing is downloaded while the pinned version is installed under another name.
use_pinned_toolchain() {
  local pinned toolchain
  if [[ -n ${RUSTUP_TOOLCHAIN:-} ]] || ! command -v rustup >/dev/null; then
    return
  fi
  pinned="$(pinned_rust)"
  if rustup toolchain list | grep -q "^$pinned-"; then
    return
  fi
  if toolchain="$(toolchain_of "$pinned")"; then
    export RUSTUP_TOOLCHAIN="$toolchain"
  fi
}

# ensure_rust_component NAME SUBCOMMAND: a minimal toolchain may lack rustfmt and clippy.
ensure_rust_component() {
  cargo "$2" --version >/dev/null 2>&1 && return
  command -v rustup >/dev/null || die "cargo $2 is missing, and there is no rustup to install it with"
  in_step "$STORMKEEPER_CACHE/logs/rustup.log" rustup component add "$1"
}

# ensure_python_library NAME VERSION MODULE PACKAGE...: installs a Python library into its own directory, and
# prints the directory.
ensure_python_library() {
  local name=$1 version=$2 module=$3 target
  shift 3
  target="$STORMKEEPER_CACHE/$name-$version-$(python3 -c 'import sys; print("py%d.%d" % sys.version_info[:2])')"
  if ! PYTHONPATH="$target" python3 -W ignore -c "import $module" 2>/dev/null; then
    pip_install "$target" "$@"
    PYTHONPATH="$target" python3 -W ignore -c "import $module" ||
      die "$name was installed into $target, but does not import"
  fi
  printf '%s\n' "$target"
}

ensure_pystorm() { ensure_python_library pystorm "$PYSTORM_VERSION" pystorm "${PYSTORM_PACKAGES[@]}"; }

ensure_flink_client() {
  ensure_python_library flink-rest-client "$FLINK_CLIENT_VERSION" flink_rest_client "${FLINK_CLIENT_PACKAGES[@]}"
}

ensure_streamparse() {
  ensure_python_library streamparse "$STREAMPARSE_VERSION" streamparse.cli.sparse "${STREAMPARSE_PACKAGES[@]}"
}

ensure_schemathesis() {
  ensure_python_library schemathesis "$SCHEMATHESIS_VERSION" schemathesis "${SCHEMATHESIS_PACKAGES[@]}"
}

ensure_openapi_validator() {
  ensure_python_library openapi-spec-validator "$OPENAPI_VALIDATOR_VERSION" openapi_spec_validator \
    "${OPENAPI_VALIDATOR_PACKAGES[@]}"
}

# The programs of scripts/tools.txt, in PATH, in exactly those versions.
ensure_tools() {
  local list="$STORMKEEPER_HOME/scripts/tools.txt" target
  target="$STORMKEEPER_CACHE/tools-$(sha256sum "$list" | cut -c 1-12)"
  [[ -d $target ]] || pip_install "$target" --no-deps --only-binary :all: --require-hashes --requirement "$list"
  PATH="$target/bin:$PATH"
}

# pip_install DIRECTORY ARGUMENTS...: Python packages in a directory of their own, all of them or
# nothing.
pip_install() {
  local target=$1 new options=()
  shift
  python3 -m pip --version >/dev/null 2>&1 || ensure_packages python3-pip
  # --target leaves the system's packages alone, yet Debian's pip requires this option.
  if python3 -m pip install --help | grep -q -- --break-system-packages; then
    options+=(--break-system-packages)
  fi
  new="$target.new.$$"
  in_step "$STORMKEEPER_CACHE/logs/pip.log" python3 -m pip install --quiet --disable-pip-version-check \
    --root-user-action ignore "${options[@]}" --target "$new" "$@"
  rm -rf "$target"
  mv "$new" "$target"
}

# The optimised binary; cargo finds out by itself whether there is anything to do.
build_release() {
  [[ -z $BINARY_IS_GIVEN ]] || return 0
  cd "$STORMKEEPER_HOME" || die "cannot enter $STORMKEEPER_HOME"
  in_step "$STORMKEEPER_CACHE/logs/build.log" cargo build --release --locked --bin stormkeeper
  [[ -x $STORMKEEPER_BINARY ]] || die "cargo build succeeded, but $STORMKEEPER_BINARY is missing"
}

# ---------------------------------------------------------------------- waiting

# wait_until SECONDS WHAT COMMAND...: runs a command until it succeeds; after SECONDS prints WHAT
# and returns 1.
wait_until() {
  local deadline=$((SECONDS + $1)) what=$2 seconds=$1
  shift 2
  until "$@"; do
    if ((SECONDS >= deadline)); then
      say "   timed out after ${seconds} s waiting for $what"
      return 1
    fi
    sleep 0.1
  done
}

# --------------------------------------------------------------- processes

# A process is identified by its pid and its start time, as pids are reused.

start_time_of() {
  local stat
  # The name in the second field may contain any characters; the fields after its last ")" do not.
  { stat="$(<"/proc/$1/stat")"; } 2>/dev/null || return 1
  # shellcheck disable=SC2086 # split on purpose
  set -- ${stat##*) }
  # A zombie has ended; its parent has not reaped it yet.
  [[ $1 != Z && $1 != X ]] || return 1
  printf '%s' "${20}"
}

# launch PID_FILE LOG COMMAND...: starts a daemon in its own session and records it.
launch() {
  local pid_file=$1 log=$2 pid
  shift 2
  mkdir -p "$(dirname "$pid_file")" "$(dirname "$log")"
  printf -- '---- %s started: %s\n' "$(date -u +%FT%TZ)" "$*" >>"$log"
  setsid -- "$@" </dev/null >>"$log" 2>&1 8>&- 9>&- &
  pid=$!
  printf '%s %s\n' "$pid" "$(start_time_of "$pid" || echo gone)" >"$pid_file"
  disown
}

# pid_of PID_FILE: prints the pid if the recorded process is still running.
pid_of() {
  local pid started
  [[ -r $1 ]] || return 1
  read -r pid started <"$1"
  [[ -n $started && "$(start_time_of "$pid")" == "$started" ]] || return 1
  printf '%s' "$pid"
}

is_gone() { ! pid_of "$1" >/dev/null; }

# stop PID_FILE NAME [SECONDS]: sends SIGTERM, waits, and then sends SIGKILL with a message.
stop() {
  local pid_file=$1 name=$2 seconds=${3:-20} pid
  if pid="$(pid_of "$pid_file")"; then
    kill -TERM "$pid" 2>/dev/null || true
    if ! wait_until "$seconds" "$name (pid $pid) to end after SIGTERM" is_gone "$pid_file"; then
      say "   sending SIGKILL to $name (pid $pid)"
      kill -KILL "$pid" 2>/dev/null || true
      wait_until 10 "$name (pid $pid) to end after SIGKILL" is_gone "$pid_file"
    fi
  fi
  rm -f "$pid_file"
}

# kill9 PID_FILE NAME: ends a process like a crash.
kill9() {
  local pid
  if pid="$(pid_of "$1")"; then
    kill -KILL "$pid" 2>/dev/null || true
    wait_until 10 "$2 (pid $pid) to end after SIGKILL" is_gone "$1"
  fi
  rm -f "$1"
}

# -------------------------------------------------------------------------- ports

# free_ports FIRST COUNT: prints COUNT consecutive unused ports: from FIRST on if these are free,
# otherwise the next free block.
free_ports() {
  python3 - "$1" "$2" <<'PYTHON'
import socket
import sys

first, count = int(sys.argv[1]), int(sys.argv[2])


def free(port):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError:
            return False
    return True


for start in range(first, first + 2000, count):
    block = range(start, start + count)
    if all(free(port) for port in block):
        print(*block)
        break
else:
    sys.exit("there are no %d consecutive free ports from %d on" % (count, first))
PYTHON
}

# owns_port PID_FILE PORT: succeeds if the recorded process itself listens on a port, and not another one that
# took the port between its choice and its use.
owns_port() {
  local pid
  pid="$(pid_of "$1")" || return 1
  python3 - "$pid" "$2" <<'PYTHON'
import glob
import os
import sys

pid, port = sys.argv[1], int(sys.argv[2])
listening = set()
for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    try:
        with open(table) as file:
            rows = [line.split() for line in file][1:]
    except OSError:
        continue
    # 0A: the socket listens. The address ends with the port, and the tenth field is the inode.
    listening.update(
        "socket:[%s]" % row[9] for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port
    )
for descriptor in glob.iglob("/proc/%s/fd/*" % pid):
    try:
        if os.readlink(descriptor) in listening:
            break
    except OSError:
        # It was closed meanwhile.
        continue
else:
    sys.exit(1)
PYTHON
}

# ---------------------------------------------------------------------- ZooKeeper

# All servers have the same client port, each on its own loopback address (127.0.0.1, .2, .3),
# because `storm.zookeeper.port` is one number for all servers.

zookeeper_host() { printf '127.0.0.%d' "$1"; }

# write_zookeeper_config DIRECTORY INDEX COUNT CLIENT_PORT [PEER_PORT ELECTION_PORT]
write_zookeeper_config() {
  local directory=$1 index=$2 count=$3 client_port=$4 other
  mkdir -p "$directory/data"
  {
    echo "tickTime=2000"
    echo "dataDir=$directory/data"
    echo "clientPort=$client_port"
    echo "clientPortAddress=$(zookeeper_host "$index")"
    echo "admin.enableServer=false"
    echo "4lw.commands.whitelist=*"
    echo "maxClientCnxns=0"
    echo "autopurge.purgeInterval=1"
    if ((count > 1)); then
      echo "initLimit=10"
      echo "syncLimit=5"
      for ((other = 1; other <= count; other++)); do
        echo "server.$other=$(zookeeper_host "$other"):$5:$6"
      done
    fi
  } >"$directory/zoo.cfg"
  if ((count > 1)); then
    echo "$index" >"$directory/data/myid"
  fi
}

# start_zookeeper DIRECTORY LOG: runs the server configured by DIRECTORY/zoo.cfg.
start_zookeeper() {
  launch "$1/pid" "$2" java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -Dorg.slf4j.simpleLogger.showDateTime=true \
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX" \
    -cp "$ZOOKEEPER_CLASS_PATH" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$1/zoo.cfg"
}

# zookeeper_answers HOST PORT: succeeds if the server accepts requests (alone or in a quorum).
zookeeper_answers() {
  python3 - "$1" "$2" <<'PYTHON'
import socket
import sys

try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as connection:
        connection.sendall(b"srvr")
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
except OSError:
    sys.exit(1)
sys.exit(b"Mode:" not in answer)
PYTHON
}

# ----------------------------------------------------------------- files to check

shell_scripts() {
  printf '%s\n' .ci/run scripts/lib.sh
  # The others are recognised by their first line.
  grep -l '^#!/usr/bin/env bash' scripts/*
}

python_files() {
  find benches crates examples integration scripts src testing -name '*.py' -not -path '*/__pycache__/*' |
    LC_ALL=C sort
}
