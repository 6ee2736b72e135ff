#!/usr/bin/env bash
# Provides a Python that has the SPIFFE library (and with it PyJWT, cryptography and grpcio) and the package
# websockets, and prints its path, the only line on stdout.
#
# SIGNET_PYTHON, when set, is taken as it is. Exit code 3: not here and cannot be had.
set -euo pipefail

if [[ -n ${SIGNET_PYTHON:-} ]]; then
  "$SIGNET_PYTHON" -c 'import spiffe, websockets' || {
    echo "SIGNET_PYTHON=$SIGNET_PYTHON is no Python with the packages spiffe and websockets" >&2
    exit 1
  }
  printf '%s\n' "$SIGNET_PYTHON"
  exit 0
fi

root=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
requirements=$root/scripts/requirements/spiffe.txt
# Another list makes another environment.
digest=$(sha256sum "$requirements" | cut -c1-8)
exec "$root/scripts/pip-binary.sh" "$requirements" "$root/target/peers/spiffe-python-$digest" bin/python3
