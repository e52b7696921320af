#!/usr/bin/env bash
# Fetches what tests use and no Python package carries: Prometheus and promtool for deploy/, which are unpacked in
# build/extras, and Chromium for reports, which root installs. Best effort: says what it did, and what it could not do.
set -uo pipefail
cd "$(dirname "$0")/../.."
folder=build/extras

# Chromium needs many libraries, so it is installed and not unpacked.
if command -v chromium >/dev/null || command -v chromium-browser >/dev/null; then
  echo "extras: chromium is on the PATH; nothing to do"
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  install() { DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends chromium >/dev/null 2>&1; }
  if install || { apt-get update --quiet --quiet >/dev/null 2>&1 && install; }; then
    echo "extras: installed chromium"
  else
    echo "extras: Debian's package chromium could not be installed. Until then the tests that open reports are left out"
  fi
else
  echo "extras: there is no chromium, and only root can install it. Until then the tests that open reports are left out"
fi

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
  echo "extras: prometheus and promtool are on the PATH; nothing to do"
  exit 0
fi
if [ -x $folder/usr/bin/prometheus ] && [ -x $folder/usr/bin/promtool ]; then
  echo "extras: prometheus and promtool are in $folder/usr/bin; nothing to do"
  exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  echo "extras: this is no Debian; put prometheus and promtool on the PATH. Until then the tests that need them are left out"
  exit 0
fi
# Unpacked beside its place and then renamed, so that tests never see half of it.
draft=$folder/draft.$$
trap 'rm -rf "$draft"' EXIT
mkdir -p "$draft"
fetch() { (cd "$draft" && apt-get download --quiet --quiet prometheus && dpkg-deb -x prometheus_*.deb .) 2>"$draft/log"; }
# A new machine has no lists of packages; only root can fetch them.
refresh() { [ "$(id -u)" = 0 ] && apt-get update --quiet --quiet >/dev/null 2>&1; }
if fetch || { refresh && fetch; }; then
  rm -rf $folder/usr && mv "$draft/usr" $folder/usr
  echo "extras: unpacked $(basename "$draft"/prometheus_*.deb) in $folder"
else
  echo "extras: Debian's package prometheus could not be had (sudo apt-get update may help). The tests that need it are left out:"
  sed 's/^/extras:   /' "$draft/log"
fi
