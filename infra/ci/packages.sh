#!/usr/bin/env bash
# Installs Debian packages that a check needs, if they are missing: packages.sh NAME...
set -euo pipefail
missing=()
for name in "$@"; do
  dpkg-query --show --showformat='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing+=("$name")
done
((${#missing[@]})) || exit 0
if [ "$(id -u)" != 0 ]; then
  printf 'FAILED: install %s first (needs root): apt-get install %s\n' "${missing[*]}" "${missing[*]}" >&2
  exit 1
fi
apt-get update -qq
# RUNLEVEL=1: packages of servers must not start them
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
