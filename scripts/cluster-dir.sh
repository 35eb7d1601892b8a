# shellcheck shell=bash disable=SC2034 # the scripts that source this use the variables
# State of the cluster of scripts/cluster. Sourced after lib.sh.

# Absolute and without symbolic links: workers are found by this path in their environment.
CLUSTER_DIR="$(realpath -m "${STORMKEEPER_CLUSTER_DIR:-$STORMKEEPER_CACHE/cluster}")"
CLIENT_CONFIG="$CLUSTER_DIR/storm.yaml"
# Of a cluster that is locked (SECURE=yes): cluster secret, tokens, users of ZooKeeper.
SECRETS="$CLUSTER_DIR/secrets"
# Error of the last request to a nimbus.
LAST_REQUEST="$CLUSTER_DIR/logs/last-request"
# Its authority and its certificate.
CERTIFICATES="$SECRETS/tls"

# Shape of the cluster, as written by `up`: one entry of NIMBUS_PORTS per nimbus, and one entry of
# SLOT_PORTS per supervisor (its ports, separated by commas).
NIMBUSES=0 SUPERVISORS=0 ZOOKEEPERS=0 ZOOKEEPER_PORT=0 SECURE=no
NIMBUS_PORTS=() SLOT_PORTS=()

load_cluster() {
  [[ -r $CLUSTER_DIR/shape ]] || die "there is no cluster below $CLUSTER_DIR; start one: scripts/cluster up"
  # shellcheck source=/dev/null
  source "$CLUSTER_DIR/shape"
}

# Only one script of a user at a time chooses ports, until its processes listen on them or it ends: another
# cluster would be given the same ones. Those of another user are noticed by `owns_port`.
lock_ports() {
  mkdir -p "$STORMKEEPER_CACHE"
  exec 8>"$STORMKEEPER_CACHE/ports.lock"
  flock --nonblock 8 && return
  say "   waiting for another scripts/cluster up, which is taking its ports"
  flock --timeout 300 8 || die "another scripts/cluster has held $STORMKEEPER_CACHE/ports.lock for five minutes"
}

unlock_ports() { exec 8>&-; }

# Only one script at a time starts or stops processes; the lock ends with this process.
lock_cluster() {
  mkdir -p "$CLUSTER_DIR"
  exec 9>"$CLUSTER_DIR/lock"
  flock --timeout 120 9 || die "another scripts/cluster has held the lock of $CLUSTER_DIR for two minutes"
}
