#!/usr/bin/env bash
# Installs the official MCP clients, and what they are compared with, from their pins; prints where.
#
# MCP_CLIENTS_CACHE names another place than .cache/mcp-clients.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
pins=$root/scripts/mcp-clients
cache=${MCP_CLIENTS_CACHE:-$root/.cache/mcp-clients}

command -v npm >/dev/null || "$root/scripts/install-packages.sh" nodejs:node npm:npm >&2
"$root/scripts/install-packages.sh" python3:python3 python3-venv git:git >&2
mkdir -p "$cache"
# Several may want it at once: one installs.
exec 9>"$cache/.lock"
flock 9
stamp=$(cat "$pins"/package-lock.json "$pins"/requirements-*.txt | sha256sum)
if [ "$(cat "$cache/.installed" 2>/dev/null)" != "$stamp" ]; then
    cp "$pins/package.json" "$pins/package-lock.json" "$cache/"
    (cd "$cache" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2
    for set in v1 v2 proxy; do
        python3 -m venv "$cache/py-$set"
        "$cache/py-$set/bin/pip" install --quiet --disable-pip-version-check -r "$pins/requirements-$set.txt" >&2
    done
    echo "$stamp" >"$cache/.installed"
fi
# Beside their packages, where they are looked for.
cp "$pins"/*.mjs "$cache/"
echo "$cache"
