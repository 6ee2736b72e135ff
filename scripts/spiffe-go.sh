#!/usr/bin/env bash
# Builds the client that uses go-spiffe (tests/clients/go) and prints its path, the only line on stdout.
# Everything it needs is pinned in go.sum.
#
# SIGNET_GO_CLIENT, when set, is taken as it is. Exit code 3: it cannot be built here (no Go toolchain,
# or its modules cannot be fetched).
set -euo pipefail

if [[ -n ${SIGNET_GO_CLIENT:-} ]]; then
  [[ -x $SIGNET_GO_CLIENT ]] || {
    echo "SIGNET_GO_CLIENT=$SIGNET_GO_CLIENT is not a program" >&2
    exit 1
  }
  printf '%s\n' "$SIGNET_GO_CLIENT"
  exit 0
fi

root=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
sources=$root/tests/clients/go
digest=$(cat "$sources"/{go.mod,go.sum,main.go} | sha256sum | cut -c1-8)
program=$root/target/peers/spiffe-go-$digest
if [[ -x $program ]]; then
  printf '%s\n' "$program"
  exit 0
fi

if ! command -v go >/dev/null; then
  echo "no Go toolchain: go is not on the PATH" >&2
  exit 3
fi
cd "$sources"
# A toolchain older than go.mod asks for is not replaced behind the user's back.
export GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0
if ! go mod download >&2; then
  echo "the modules of the go-spiffe client cannot be fetched here, or this Go is too old for them" >&2
  exit 3
fi
mkdir -p "${program%/*}"
echo "building the go-spiffe client" >&2
stage=$(mktemp "$program.XXXXXX")
trap 'rm -f "$stage"' EXIT
go build -trimpath -buildvcs=false -ldflags=-s -o "$stage" . >&2
chmod 755 "$stage"
mv "$stage" "$program"
printf '%s\n' "$program"
