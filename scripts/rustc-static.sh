#!/bin/sh
# Called by cargo in place of rustc for the crates of this workspace (.cargo/config.toml). The programs
# that images hold get the C library linked in; libraries, tests, build scripts and the rest do not.
# RUSTFLAGS cannot say this: without --target they reach build scripts and procedural macros, which
# cannot be static.
rustc=$1
shift
case ${CARGO_BIN_NAME-} in
signet | signet-ca | signet-agent | signet-proxy) exec "$rustc" "$@" -C target-feature=+crt-static ;;
esac
exec "$rustc" "$@"
