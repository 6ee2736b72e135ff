#!/usr/bin/env bash
# Checks the crates of Cargo.lock against the RustSec advisories, where the network allows it.
#
# Exit code 0 also where the advisory database cannot be fetched: the last line then says what was
# not checked. Any real advisory is an error.
set -euo pipefail

here=${BASH_SOURCE[0]%/*}

# Fetching is a step of its own because cargo-deny's exit code does not tell "no database" from
# "a vulnerable crate".
if "$here/cargo-deny.sh" fetch db >&2; then
  exec "$here/cargo-deny.sh" check advisories
fi

# A database of an earlier day is better than none.
if compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/.git/FETCH_HEAD" >/dev/null; then
  "$here/cargo-deny.sh" --offline check advisories
  echo "audit: NOT UP TO DATE: checked against the advisory database of an earlier day" >&2
else
  echo "audit: NOTHING CHECKED: the advisory database cannot be fetched from this network" >&2
fi
