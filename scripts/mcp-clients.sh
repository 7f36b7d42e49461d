#!/usr/bin/env bash
# Four official SDK clients against four real servers, each server behind the bridge on this machine.
# Clients and servers are installed once, from their pins, into .cache/mcp-clients.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=$("$root/scripts/mcp-clients/install.sh")
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
    local name=$1 tool=$2 arguments=$3 expected=$4 url=; shift 4
    "$target/examples/serve" 127.0.0.1:0 "$@" >"$work/log" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        url=$(sed -n 's/^listening on //p' "$work/log")
        [ -n "$url" ] && break
        sleep 0.1
    done
    echo "$name"
    "$root/scripts/mcp-clients/try.sh" "$url" "$tool" "$arguments" "$expected" || failed=1
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
