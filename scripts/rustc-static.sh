#!/bin/sh
# Called by cargo in place of rustc for the crates of this workspace (.cargo/config.toml). The programs
# that images hold get the C library linked in; libraries, tests, build scripts and the rest do not.
# RUSTFLAGS cannot say this: without --target they reach build scripts and procedural macros, which
# cannot be static. Relative relocations are packed where the C library reads that form (glibc from 2.36): a program
# reads all of them when it starts, and what it has read stays in memory.
rustc=$1
shift
case ${CARGO_BIN_NAME-} in
signet | signet-ca | signet-agent | signet-proxy)
  set -- "$@" -C target-feature=+crt-static
  case $(getconf GNU_LIBC_VERSION 2>/dev/null) in
  'glibc 2.'[0-9] | 'glibc 2.'[12][0-9] | 'glibc 2.3'[0-5]) ;;
  'glibc '*) set -- "$@" -C link-arg=-Wl,-z,pack-relative-relocs ;;
  esac
  ;;
esac
exec "$rustc" "$@"
