#!/bin/sh
# Installs the Debian packages whose programs the tests start (one a line, with the test that needs it). Always ends with 0:
# a test whose program is absent skips itself and says so. Does nothing when everything is there. "all" adds what only
# `make test-all` wants.
set -u

packages="
munge:munged            tests/compute/test_slurm.py
slurmctld:slurmctld     tests/compute/test_slurm.py
slurmd:slurmd           tests/compute/test_slurm.py
slurm-client:sbatch     tests/compute/test_slurm.py
chromium:chromium       tests/agent/test_agent_page.py
bubblewrap:bwrap        tests/agent/test_sandbox.py
"

if [ "${1:-}" = all ]; then
  packages="$packages
default-jre-headless:java   tests/data/test_engines.py
"
fi

PATH="$PATH:/usr/sbin:/sbin"
wanted=""
for entry in $(printf '%s\n' "$packages" | awk 'NF { print $1 }'); do
  command -v "${entry#*:}" >/dev/null 2>&1 || wanted="$wanted ${entry%%:*}"
done

if [ -z "$wanted" ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
  echo "install_debian: no apt-get here, so$wanted stay absent and their tests are skipped"
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "install_debian: not root, so$wanted stay absent and their tests are skipped"
  exit 0
fi
echo "install_debian: installing$wanted"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # a list of names
if ! { timeout 120 apt-get -o DPkg::Lock::Timeout=60 update -q &&
  timeout 400 apt-get -o DPkg::Lock::Timeout=60 install -y -q --no-install-recommends $wanted; } >"$log" 2>&1; then
  echo "install_debian: apt-get failed ($(tail -n 1 "$log")); the tests that need$wanted are skipped"
fi
rm -f "$log"
exit 0
