#!/usr/bin/env bash
# Runs a command with SIGNET_ENVOY set to a real Envoy.
#
#   with-envoy.sh COMMAND...
#
# Where there is no Envoy to be had the command runs without it and its tests skip themselves; with
# SIGNET_PEERS=required that is an error instead.
set -euo pipefail

here=${BASH_SOURCE[0]%/*}
if path=$("$here/envoy.sh"); then
  export SIGNET_ENVOY=$path
else
  status=$?
  if [[ ${SIGNET_PEERS:-} == required ]]; then
    echo "error: no Envoy (see above), and SIGNET_PEERS=required" >&2
    exit "$status"
  fi
  printf '%s\n' \
    '*******************************************************************************' \
    '* NO ENVOY: every test against a real Envoy is going to be SKIPPED, see above. *' \
    '* Set SIGNET_ENVOY to an Envoy of your own, or SIGNET_PEERS=required to insist. *' \
    '*******************************************************************************' >&2
fi
exec "$@"
