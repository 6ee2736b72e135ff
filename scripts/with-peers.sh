#!/usr/bin/env bash
# Runs a command with the peers that others made: SIGNET_ENVOY (a real Envoy), SIGNET_PYTHON (a Python
# with the SPIFFE library) and SIGNET_GO_CLIENT (a client on go-spiffe).
#
#   with-peers.sh COMMAND...
#
# What cannot be had is left out and its tests skip themselves; with SIGNET_PEERS=required that is an
# error instead.
set -euo pipefail

here=${BASH_SOURCE[0]%/*}
# Sets the variable $1 to what the script $2 prints; $3 says what is missing without it.
peer() {
  local path status=0
  path=$("$here/$2") || status=$?
  if ((status == 0)); then
    export "$1=$path"
    return
  fi
  if ((status != 3)) || [[ ${SIGNET_PEERS:-} == required ]]; then
    echo "error: no $3 (see above)" >&2
    exit "$status"
  fi
  printf '%s\n' \
    '*******************************************************************************' \
    "* NO $3: every test against it is going to be SKIPPED, see above." \
    "* Set $1, or SIGNET_PEERS=required to insist." \
    '*******************************************************************************' >&2
}
peer SIGNET_ENVOY envoy.sh 'real Envoy'
peer SIGNET_PYTHON spiffe-python.sh 'SPIFFE library for Python'
peer SIGNET_GO_CLIENT spiffe-go.sh 'client on go-spiffe'
exec "$@"
