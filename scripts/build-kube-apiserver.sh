#!/usr/bin/env bash
# Provides kube-apiserver and etcd for the tests that need a real API server.
#
# Prints one line on stdout: the directory that holds both. Everything else goes to stderr.
#
# With KUBEBUILDER_ASSETS set that directory is used and nothing is built. Otherwise kube-apiserver
# is built once from Debian's source package `kubernetes`, which carries all of its Go dependencies,
# and kept in the user's cache directory. Debian packages no kube-apiserver itself, and a prebuilt
# one cannot be fetched everywhere these tests run.
set -euo pipefail

readonly kube_version=1.20.2
# The newest Go of Debian 12; kubernetes 1.20 builds with it and does not with much newer ones.
readonly go_series=1.19

say() { printf 'kube-apiserver: %s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

# Both programs must be there and run, so that a broken or half-copied cache is never handed out.
# (No `grep -q`: it would close the pipe early and pipefail would call that a failure.)
usable() {
  [[ -x $1/kube-apiserver && -x $1/etcd ]] &&
    [[ $("$1/kube-apiserver" --version 2>/dev/null) == "Kubernetes v"* ]] &&
    [[ $("$1/etcd" --version 2>/dev/null) == *"etcd Version: "* ]]
}

if [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
  usable "$KUBEBUILDER_ASSETS" ||
    die "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS holds no kube-apiserver and etcd that run here"
  printf '%s\n' "$KUBEBUILDER_ASSETS"
  exit 0
fi

cache=${XDG_CACHE_HOME:-${HOME:?neither XDG_CACHE_HOME nor HOME is set}/.cache}/signet
assets=$cache/kube-$kube_version
if usable "$assets"; then
  printf '%s\n' "$assets"
  exit 0
fi

# ---- what the build needs -----------------------------------------------------------------------

# etcd, golang-go and so on by the name of the Debian package that brings the program.
missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need apt-get apt
need dpkg-source dpkg-dev
need make make
need gcc gcc
need rsync rsync
need jq jq
need flock util-linux
need etcd etcd-server
go_bin=/usr/lib/go-$go_series/bin
[[ -x $go_bin/go ]] || missing+=("golang-$go_series-go")
if ((${#missing[@]})); then
  die "missing Debian packages: ${missing[*]}
  as root: apt-get install --no-install-recommends ${missing[*]}
  or set KUBEBUILDER_ASSETS to a directory with kube-apiserver and etcd"
fi

mkdir -p "$cache"
# Two builds at once would only take twice as long: the second waits and finds the first one's result.
exec 9>"$cache/kube-$kube_version.lock"
if ! flock --nonblock 9; then
  say "another build is running; waiting for it"
  flock 9
fi
if usable "$assets"; then
  printf '%s\n' "$assets"
  exit 0
fi

# Beside the result, so that the rename at the end stays on one file system.
work=$(mktemp -d "$cache/kube-$kube_version.build.XXXXXX")
# Debian's Go marks nothing read-only in GOPATH mode, but a module cache would be; be sure.
trap 'chmod -R u+w "$work" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
started=$SECONDS

# ---- source -------------------------------------------------------------------------------------

# The machine's own apt sources, turned into deb-src in a private copy with its own state, so that
# the system's configuration is neither changed nor locked.
apt_dir=$work/apt
mkdir -p "$apt_dir"/{sources.list.d,lists/partial,cache/archives/partial}
: >"$apt_dir/sources.list"
if [[ -f /etc/apt/sources.list ]]; then
  sed -nE 's/^deb([[:space:]])/deb-src\1/p' /etc/apt/sources.list >"$apt_dir/sources.list"
fi
for list in /etc/apt/sources.list.d/*; do
  name=${list##*/}
  case $name in
    *.sources) sed -E 's/^Types:.*/Types: deb-src/I' "$list" >"$apt_dir/sources.list.d/$name" ;;
    *.list) sed -nE 's/^deb([[:space:]])/deb-src\1/p' "$list" >"$apt_dir/sources.list.d/$name" ;;
  esac
done
apt_options=(
  -o "Dir::Etc::sourcelist=$apt_dir/sources.list"
  -o "Dir::Etc::sourceparts=$apt_dir/sources.list.d"
  -o "Dir::State::lists=$apt_dir/lists"
  -o "Dir::Cache=$apt_dir/cache"
  # The directory is private to this user; apt's own download user could not write to it.
  -o "APT::Sandbox::User=$(id -un)"
  -o "Acquire::Languages=none"
)

say "reading the source lists"
# A source list without deb-src must not stop this: whether the package is there decides.
apt-get "${apt_options[@]}" -qq update >&2 || say "apt-get update was not complete; going on"
# Every version of the source package $1 on offer.
source_versions() {
  apt-cache "${apt_options[@]}" showsrc --only-source "$1" 2>/dev/null | sed -n 's/^Version: //p'
}
# Debian's numbering had a slip: its 1.20.2 is called 1.20.5+really1.20.2.
package=$(source_versions kubernetes |
  { grep -E "^(.*really)?${kube_version//./\\.}([-+~]|$)" || true; } | sort -V | tail -n 1)
[[ -n $package ]] ||
  die "this machine's apt sources offer no source package kubernetes $kube_version (Debian 12 does);
  set KUBEBUILDER_ASSETS to a directory with kube-apiserver and etcd instead"

# Fetches the source package $1 in version $2 and unpacks it at $3. apt checks the files against the
# signed index, so dpkg-source does not look for the uploader's key as well.
unpack() {
  say "fetching $1 $2"
  (cd "$work" && apt-get "${apt_options[@]}" -qq --download-only source "$1=$2" >&2)
  dpkg-source --no-check -x "$work/$1"_*.dsc "$3" >/dev/null
}

export GOPATH=$work/go
source_dir=$GOPATH/src/k8s.io/kubernetes
mkdir -p "${source_dir%/*}"
unpack kubernetes "$package" "$source_dir"

# The vendored reflect2 1.0.1 calls a function of the Go runtime that takes one more argument since
# Go 1.18: without this, printing an object with a map as indented JSON (as the API server does for
# curl) corrupts memory, and later requests die with a panic. Debian packages the repaired 1.0.2.
reflect2=golang-github-modern-go-reflect2
reflect2_version=$(source_versions $reflect2 | sort -V | tail -n 1)
[[ -n $reflect2_version ]] || die "this machine's apt sources offer no source package $reflect2"
dpkg --compare-versions "$reflect2_version" ge 1.0.2 ||
  die "$reflect2 $reflect2_version is too old for Go $go_series (1.0.2 is needed)"
unpack $reflect2 "$reflect2_version" "$work/reflect2"
rm -rf "$source_dir/vendor/github.com/modern-go/reflect2"
mv "$work/reflect2" "$source_dir/vendor/github.com/modern-go/reflect2"
# The package brings its tests as directories of their own, which are no part of the library.
find "$source_dir/vendor/github.com/modern-go/reflect2" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +

# ---- build --------------------------------------------------------------------------------------

# Without a git tree the build asks this file for its version, which the API server then reports.
cat >"$work/version" <<VERSION
KUBE_GIT_COMMIT='debian-$package'
KUBE_GIT_TREE_STATE='archive'
KUBE_GIT_VERSION='v$kube_version'
KUBE_GIT_MAJOR='1'
KUBE_GIT_MINOR='20'
VERSION

say "building with $("$go_bin/go" version | cut -d' ' -f3) (about five minutes)"
# Debian's Go comes first on the PATH: the build takes whichever `go` it finds. GOPROXY=off because
# everything is vendored: a build that reaches for the network has gone wrong.
(
  cd "$source_dir"
  unset GOROOT GOFLAGS GOBIN GOOS GOARCH GOTOOLCHAIN MAKEFLAGS MAKELEVEL MFLAGS
  export PATH="$go_bin:$PATH" GO111MODULE=off GOPROXY=off GOCACHE="$work/go-cache"
  export KUBE_GIT_VERSION_FILE="$work/version" KUBE_VERBOSE=1
  make WHAT=cmd/kube-apiserver GOLDFLAGS='-s -w' >&2 </dev/null
)

stage=$work/assets
mkdir "$stage"
cp "$source_dir"/_output/local/go/bin/kube-apiserver "$stage/" ||
  die "the build ended without a kube-apiserver"
# A copy, not a link: the cache must not break when the package is upgraded or removed.
cp -L "$(command -v etcd)" "$stage/etcd"
usable "$stage" || die "what was built does not run"

# A leftover that does not run is replaced; only the holder of the lock gets here.
rm -rf "$assets"
mv -T "$stage" "$assets"
say "built in $((SECONDS - started)) s: $assets"
printf '%s\n' "$assets"
