#!/usr/bin/env bash
# Walks through the service of microVM sandboxes with curl: create, execute, write, read, list, pause, resume, delete.
# WORKSPACE_FIRECRACKER_URL names the service (http://localhost:8080), WORKSPACE_FIRECRACKER_TOKEN its key, if it has
# one. Whatever happens, the sandbox is deleted at the end.
set -euo pipefail
url=${WORKSPACE_FIRECRACKER_URL:-http://localhost:8080}
sandbox=

# The key goes through a file descriptor: arguments are there for everybody to read.
call() {
    local method=$1 path=$2
    shift 2
    curl --silent --show-error --fail-with-body --max-time 300 --request "$method" \
        --config <([ -z "${WORKSPACE_FIRECRACKER_TOKEN:-}" ] || printf 'header = "Authorization: Bearer %s"\n' "$WORKSPACE_FIRECRACKER_TOKEN") \
        --header 'Content-Type: application/json' "$@" "$url$path"
}
finish() {
    local status=$?
    [ -z "$sandbox" ] || call DELETE "/sandboxes/$sandbox" >/dev/null || status=1
    [ "$status" -eq 0 ] && echo "All of it works." || echo "FAILED" >&2
    exit "$status"
}
trap finish EXIT
step() { printf '== %s\n' "$*"; }
# Fails unless an answer has a text in it; shows the answer.
expect() {
    local text=$1 answer=$2
    printf '   %s\n' "$answer"
    case $answer in *"$text"*) ;; *) echo "   expected: $text" >&2 && return 1 ;; esac
}

step "Health"
call GET /health
echo
step "Create"
created=$(call POST /sandboxes --data '{"template": "default", "memory_mb": 512, "vcpu_count": 1}')
sandbox=$(printf '%s' "$created" | sed -n 's/.*"sandbox_id" *: *"\([^"]*\)".*/\1/p')
expect '"sandbox_id"' "$created"
step "Execute"
expect 'hello from the sandbox' "$(call POST "/sandboxes/$sandbox/exec" \
    --data '{"command": "echo hello from the sandbox; uname -r", "timeout_seconds": 60, "working_dir": "/workspace"}')"
step "Write a file"
call POST "/sandboxes/$sandbox/files/write" --data '{"path": "/workspace/hello.txt", "content": "Hello!\n"}'
echo
step "Read it"
expect 'Hello!' "$(call GET "/sandboxes/$sandbox/files/read?path=/workspace/hello.txt")"
step "List its directory"
expect 'hello.txt' "$(call GET "/sandboxes/$sandbox/files/list?path=/workspace")"
step "Pause"
call POST "/sandboxes/$sandbox/pause"
echo
step "Resume"
call POST "/sandboxes/$sandbox/resume"
echo
step "Read it again"
expect 'Hello!' "$(call GET "/sandboxes/$sandbox/files/read?path=/workspace/hello.txt")"
step "Delete"
call DELETE "/sandboxes/$sandbox"
sandbox=
echo
