#!/bin/sh
# Puts ONNX Runtime's C++ headers into clients/cpp/headers, from Debian 13's package, on Debian 12 too.
#
# The headers are of ONNX Runtime 1.21; a program that is compiled with them runs with every later library.
set -eu
cd "$(dirname "$0")"
[ -e headers/onnxruntime_cxx_api.h ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
[ -n "$mirror" ] || { echo "expected a mirror of Debian among apt's sources: run apt-get update" >&2; exit 1; }
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/sources"
cat > "$work/sources/trixie.sources" << END
Types: deb
URIs: $mirror
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
apt() {
    apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources" \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update
(cd "$work" && apt download libonnxruntime-dev)
dpkg-deb -x "$work"/libonnxruntime-dev_*.deb "$work/package"
mv "$work/package/usr/include/onnxruntime" headers
