# Installs $PACKAGE from Python's registry into $DIRECTORY, and leaves its program as $DIRECTORY/run.
set -eu
cd "$DIRECTORY"
wanted=$(printf 'pypi\n%s\n%s' "$PACKAGE" "$CONSTRAINTS" | sha256sum | cut -d' ' -f1)
if [ -x run ] && [ "$(cat installed 2>/dev/null)" = "$wanted" ]; then exit 0; fi
rm -rf ./* 2>/dev/null || true
printf '%s\n' "$CONSTRAINTS" > constraints.txt
python3 -m venv venv
venv/bin/pip install --quiet --no-input --disable-pip-version-check --no-cache-dir -c constraints.txt -- "$PACKAGE"
program=$(venv/bin/python - "$PACKAGE" <<'PROGRAM'
import re, sys
from importlib import metadata
name = re.split(r"[\[<>=!~;@ ]", sys.argv[1], maxsplit=1)[0]
scripts = [entry.name for entry in metadata.distribution(name).entry_points if entry.group == "console_scripts"]
canonical = lambda text: re.sub(r"[-_.]+", "-", text).lower()
own = [script for script in scripts if canonical(script) == canonical(name)]
print((own or scripts or [""])[0])
PROGRAM
)
if [ -z "$program" ]; then
    echo "$PACKAGE has no program of its own; it is a library, not a server" >&2
    exit 1
fi
printf '#!/bin/sh\nPATH=%s/venv/bin:$PATH exec %s/venv/bin/%s "$@"\n' "$DIRECTORY" "$DIRECTORY" "$program" > run
chmod 755 run
printf '%s' "$wanted" > installed
