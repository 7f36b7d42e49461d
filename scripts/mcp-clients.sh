#!/usr/bin/env bash
# Four official SDK clients against four real servers, each server behind the bridge on this machine.
# Clients and servers are installed once, from their pins, into .cache/mcp-clients.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
pins=$root/scripts/mcp-clients
cache=$root/.cache/mcp-clients

command -v npm >/dev/null || "$root/scripts/install-packages.sh" nodejs npm
"$root/scripts/install-packages.sh" python3 python3-venv git

stamp=$(cat "$pins"/package-lock.json "$pins"/requirements-*.txt | sha256sum)
if [ "$(cat "$cache/.installed" 2>/dev/null)" != "$stamp" ]; then
    mkdir -p "$cache"
    cp "$pins/package.json" "$pins/package-lock.json" "$cache/"
    (cd "$cache" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    for set in v1 v2 proxy; do
        python3 -m venv "$cache/py-$set"
        "$cache/py-$set/bin/pip" install --quiet --disable-pip-version-check -r "$pins/requirements-$set.txt"
    done
    echo "$stamp" >"$cache/.installed"
fi
cp "$pins"/*.mjs "$cache/"
(cd "$root" && cargo build --quiet --locked --workspace --bin emergent-mcp-fixture --example serve)
target=${CARGO_TARGET_DIR:-$root/target}/debug
npm=$cache/node_modules/@modelcontextprotocol

server= failed=0 work=$(mktemp -d)
stop() { [ -z "$server" ] || { kill -INT "$server" 2>/dev/null && wait "$server" || true; }; server=; }
trap 'stop; rm -rf "$work"' EXIT
git -C "$work" init --quiet repo
echo "some text" >"$work/file.txt"

# name, tool, arguments, what the answer contains, command
try() {
    local name=$1 tool=$2 arguments=$3 expected=$4 url= said; shift 4
    "$target/examples/serve" 127.0.0.1:0 "$@" >"$work/log" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        url=$(sed -n 's/^listening on //p' "$work/log")
        [ -n "$url" ] && break
        sleep 0.1
    done
    for client in "npm sdk 1.x|node $cache/sdk-v1.mjs" "npm client 2.x|node $cache/client-v2.mjs" \
        "PyPI mcp <2|$cache/py-v1/bin/python $pins/python_v1.py" "PyPI mcp 2.x|$cache/py-v2/bin/python $pins/python_v2.py"; do
        if said=$(timeout 60 ${client#*|} "$url" "$tool" "$arguments" "$expected" 2>"$work/err"); then
            echo "ok    ${client%%|*} - $name: $said"
        else
            echo "FAIL  ${client%%|*} - $name"
            tail -20 "$work/err"
            failed=1
        fi
    done
    local children
    stop
    children=$(pgrep -f -- "$work" || true)
    [ -z "$children" ] || { echo "FAIL  $name: processes left: $children"; failed=1; }
}
try server-everything echo '{"message":"hello there"}' 'hello there' \
    node "$npm/server-everything/dist/index.js" stdio "$work"
try server-filesystem read_text_file "{\"path\":\"$work/file.txt\"}" 'some text' \
    node "$npm/server-filesystem/dist/index.js" "$work"
try mcp-server-time get_current_time '{"timezone":"Europe/Zurich"}' 'Europe/Zurich' \
    "$cache/py-v2/bin/mcp-server-time" --local-timezone UTC
try mcp-server-git git_status "{\"repo_path\":\"$work/repo\"}" 'Repository status' \
    "$cache/py-v2/bin/mcp-server-git" --repository "$work/repo"
exit $failed
