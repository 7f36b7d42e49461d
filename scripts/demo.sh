#!/usr/bin/env bash
# A real workspace, end to end: somebody else's project, its own tests, an edit, a commit, a stop and a resume.
# Everything that it makes is removed at the end. Usage: demo.sh FOLDER-OF-PROGRAMS
set -euo pipefail
bin=$1
here=$(cd "$(dirname "$0")" && pwd)
# Pinned by version and hash: a pure-Python project that tests itself with nothing but Python.
project=more-itertools
version=10.5.0
sha256=5482bfef7849c25dc3c6dd53a6173ae4795da2a41a80faea6700d9f5846c5da6

"$here/install-packages.sh" curl:curl python3:python3 python3-pip:pip3
data=$(mktemp --directory)
server=
finish() {
    status=$?
    if [ -n "$server" ]; then
        [ -z "${workspace:-}" ] || "$bin/emergent" workspace rm "$workspace" >/dev/null 2>&1 || true
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    [ "$status" -eq 0 ] || { echo "--- the server's log"; tail -n 40 "$data/log" 2>/dev/null; }
    rm -rf "$data"
    exit "$status"
}
trap finish EXIT

title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
# Says how long a step took, for people; the benchmark is `make bench`.
timed() {
    local label=$1 started ended
    shift
    started=$(date +%s%N)
    "$@"
    ended=$(date +%s%N)
    printf '   (%s: %d ms)\n' "$label" $(((ended - started) / 1000000))
}

title "Starting the server, with embedded SQLite"
export EMERGENT_SERVER=http://127.0.0.1:17270
export EMERGENT_DATA_DIR=$data
ENABLE_AGENT_WORKSPACES=true EMERGENT_LISTEN=127.0.0.1:17270 "$bin/emergent" serve >"$data/log" 2>&1 &
server=$!
for _ in $(seq 100); do
    curl --silent --fail "$EMERGENT_SERVER/ready" >/dev/null && break
    kill -0 "$server" || exit 1
    sleep 0.1
done
curl --silent --fail "$EMERGENT_SERVER/ready" >/dev/null
EMERGENT_TOKEN=$(cat "$data/bootstrap-token")
export EMERGENT_TOKEN

# One call of a tool through the REST API, as an agent makes it.
api() {
    curl --silent --show-error --fail-with-body --request POST --header "Authorization: Bearer $EMERGENT_TOKEN" \
        --header 'Content-Type: application/json' --data "$2" "$EMERGENT_SERVER/api/v1/agent/workspaces/$workspace/$1"
}
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

title "Creating a workspace"
create() { workspace=$("$bin/emergent" workspace create --name demo --json | field id); }
timed "create to ready, through the command line" create
"$bin/emergent" workspace show "$workspace"

title "Looking around in it"
"$bin/emergent" workspace exec "$workspace" -- ls -la

title "Putting $project $version in it"
echo "$project==$version --hash=sha256:$sha256" >"$data/requirements.txt"
python3 -m pip download --quiet --no-deps --no-binary :all: --require-hashes --requirement "$data/requirements.txt" --dest "$data/source" 2>"$data/pip.log" ||
    { cat "$data/pip.log"; exit 1; }
timed "upload" "$bin/emergent" workspace cp "$data"/source/*.tar.gz "$workspace:/workspace/source.tar.gz"
api bash '{"command": "tar xzf source.tar.gz --strip-components=1 && rm source.tar.gz && git init -q -b main && git add -A && git -c user.name=demo -c user.email=demo@localhost commit -q -m import && git log --oneline"}' | field stdout
api bash '{"command": "ls -la"}' | field stdout

title "Running the project's own tests inside"
timed "test-suite" "$bin/emergent" workspace exec "$workspace" -- python3 -m unittest -q

title "Editing a file, finding the edit, committing it"
timed "edit" api edit '{"file_path": "more_itertools/__init__.py", "old_string": "from .more import *", "new_string": "# Read in a workspace.\nfrom .more import *"}'
echo
timed "grep" api grep '{"pattern": "Read in a workspace"}'
echo
timed "commit" api git '{"action": "commit", "message": "Leave a note"}'
echo

title "Stopping it, and resuming it: the state is still there"
timed "stop" "$bin/emergent" workspace stop "$workspace"
timed "resume" "$bin/emergent" workspace resume "$workspace"
timed "log" api git '{"action": "log", "limit": 2}'
echo
test "$(api bash '{"command": "grep -c \"Read in a workspace\" more_itertools/__init__.py"}' | field stdout)" = 1

title "Ten calls of a tool, one after the other"
ten_reads() { for _ in $(seq 10); do api read '{"file_path": "README.rst", "limit": 1}' >/dev/null; done; }
timed "ten reads, each by a curl of its own" ten_reads

title "Removing it"
timed "rm" "$bin/emergent" workspace rm "$workspace"
removed=$workspace
workspace=
left() { docker ps --all --quiet --filter "label=$1"; docker volume ls --quiet --filter "label=$1"; }
test -z "$(left "emergent.workspace=$removed")"
# The server's own notes in Docker go with the server.
id=$(sed -n 's/.*listening on.* server=\([0-9a-f-]*\).*/\1/p' "$data/log")
kill "$server"
wait "$server"
server=
test -n "$id" && test -z "$(left "emergent.server=$id")"
echo "Nothing of it is left in Docker."
