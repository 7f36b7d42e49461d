#!/usr/bin/env bash
# Fuzzes the API against its own OpenAPI document: no request may be answered with a server error, nor with what the
# document does not say. Usage: fuzz-api.sh FOLDER-OF-PROGRAMS
set -euo pipefail
bin=$1
here=$(cd "$(dirname "$0")" && pwd)
tools=${FUZZ_TOOLS_DIR:-$here/../.cache/fuzz}

"$here/install-packages.sh" curl:curl python3:python3 python3-venv
[ -x "$tools/bin/schemathesis" ] || { python3 -m venv "$tools" && "$tools/bin/pip" install --quiet 'schemathesis==4.32.5'; }

data=$(mktemp --directory)
server=
# What the fuzzer has made and not removed: copies, snapshots.
remove_what_was_made() {
    label="label=emergent.server=$(sed -n 's/.*listening on.* server=\([0-9a-f-]*\).*/\1/p' "$data/log" | head -n 1)"
    docker ps --all --quiet --filter "$label" | xargs --no-run-if-empty docker rm --force >/dev/null 2>&1 || true
    docker volume ls --quiet --filter "$label" | xargs --no-run-if-empty docker volume rm >/dev/null 2>&1 || true
    docker images --quiet --filter "$label" | xargs --no-run-if-empty docker rmi --force >/dev/null 2>&1 || true
}
finish() {
    status=$?
    [ -z "${workspace:-}" ] || "$bin/emergent" workspace rm "$workspace" >/dev/null 2>&1 || true
    [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
    remove_what_was_made
    [ "$status" -eq 0 ] || tail -n 40 "$data/log"
    rm -rf "$data"
    exit "$status"
}
trap finish EXIT

url=http://127.0.0.1:17271
# Creates are admitted and then fail on an image that is not there, so that no fuzzed request costs a container.
ENABLE_AGENT_WORKSPACES=true EMERGENT_DATA_DIR=$data EMERGENT_LISTEN=127.0.0.1:17271 \
    WORKSPACE_DEFAULT_IMAGE=localhost:1/absent:latest WORKSPACE_ALLOWED_IMAGES="**" "$bin/emergent" serve >"$data/log" 2>&1 &
server=$!
for _ in $(seq 100); do
    curl --silent --fail "$url/ready" >/dev/null && break
    kill -0 "$server"
    sleep 0.1
done
export EMERGENT_SERVER=$url
EMERGENT_TOKEN=$(cat "$data/bootstrap-token")
export EMERGENT_TOKEN

fuzz() {
    # It keeps a cache in the folder that it runs in. One worker: with more, CPython 3.11's parser fails now and then
    # under hypothesis (`AST constructor recursion depth mismatch`).
    (cd "$data" && "$tools/bin/schemathesis" "$@" --url "$url" --header "Authorization: Bearer $EMERGENT_TOKEN" \
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
        --max-examples "${FUZZ_EXAMPLES:-40}" --workers 1 --generation-deterministic --request-timeout 60)
}

# Without what would end it for the others, and without waiting for processes that never end.
echo "Fuzzing what works inside a workspace, with one that lives"
workspace=$("$bin/emergent" workspace create --image "${FUZZ_IMAGE:-emergent/workspace:latest}" --json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
printf '[parameters]\n"path.id" = "%s"\n' "$workspace" >"$data/inside.toml"
fuzz --config-file "$data/inside.toml" run "$url/openapi.json" --include-path-regex '/workspaces/\{id\}' \
    --exclude-path-regex '/(stop|pause|resume|wait|output)$' --exclude-method DELETE
"$bin/emergent" workspace rm "$workspace"
workspace=

echo "Fuzzing every operation, with ids of its own finding"
# A hosted server that is being started or whose process fails is no failure of ours. A server that drains would answer
# all else with 503.
cat >"$data/all.toml" <<'END'
[[operations]]
include-path-regex = '/mcp/servers/\{id\}/(call|logs)$'
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 502, 503, 504]
END
fuzz --config-file "$data/all.toml" run "$url/openapi.json" --exclude-path-regex '/tokens/\{id\}|/drain$'

echo "Fuzzing what may take its own token away"
fuzz run "$url/openapi.json" --include-path-regex '/tokens/\{id\}'
