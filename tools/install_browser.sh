#!/usr/bin/env bash
# A browser for the tests of the reports (tests/reports/test_browser.py): nothing if there is one, else Debian's.

set -euo pipefail
if ! command -v chromium >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "Cannot install a browser here: install Chromium as 'chromium', or run this as root on Debian." >&2
        exit 1
    fi
    echo "Installing chromium ..."
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation >/dev/null
fi
chromium --version
