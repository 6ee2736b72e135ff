#!/usr/bin/env bash
# Fuzzes one target, or all of them one after another, with libFuzzer on stable Rust.
#
#   scripts/fuzz.sh [TARGET] [SECONDS]        default: all targets, 60 seconds each
#
# Seeds come from fuzz/corpus/TARGET, which is not written to; what is found on the way is kept under
# target/fuzz/corpus. A crash is kept under target/fuzz/crashes: fix it, then move the file into
# fuzz/corpus/TARGET, where every test run replays it.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-}
seconds=${2:-60}
if [[ $target =~ ^[0-9]+$ ]]; then # only the time was given
    seconds=$target
    target=
fi
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "fuzz: SECONDS must be a positive number, not '$seconds'" >&2; exit 2; }

mapfile -t all < <(find fuzz/corpus -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort)
if [[ -n $target && ! -d fuzz/corpus/$target ]]; then
    echo "fuzz: no target '$target', there are: ${all[*]}" >&2
    exit 2
fi
[[ -n $target ]] && all=("$target")

missing=()
command -v cargo >/dev/null || missing+=("cargo (rustup.rs)")
if ! command -v "${CXX:-c++}" >/dev/null; then
    missing+=("a C++ compiler, which builds libFuzzer (Debian: g++; or set CXX)")
fi
if ((${#missing[@]})); then
    printf 'fuzz: missing: %s\n' "${missing[@]}" >&2
    exit 2
fi

out=$PWD/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
# What the nightly flag -Zsanitizer would ask of LLVM, asked for directly: counters and comparisons.
# With --target they reach the fuzzed code and not the build scripts.
flags=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    --cfg fuzzing
)
RUSTFLAGS="${flags[*]}" cargo build --quiet --manifest-path fuzz/libfuzzer/Cargo.toml \
    --target "$host" --target-dir "$out"
program=$out/$host/debug/signet-libfuzzer

failed=()
for name in "${all[@]}"; do
    mkdir -p "$out/corpus/$name" "$out/crashes/$name"
    log=$out/$name.log
    if SIGNET_FUZZ_TARGET=$name "$program" "$out/corpus/$name" "fuzz/corpus/$name" \
        -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$out/crashes/$name/" >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        cover=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
        printf 'fuzz: %-12s %10s runs  %s\n' "$name" "$runs" "$cover"
    else
        failed+=("$name")
        printf 'fuzz: %-12s FAILED, see %s\n' "$name" "$log" >&2
        tail -n 25 "$log" >&2
    fi
done
((${#failed[@]} == 0))
