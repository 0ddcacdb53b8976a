#!/usr/bin/env bash
# Records docs/terminal.svg: the commands of README from images to an answer. Needs Debian's asciinema, and Node.js.
#     PATH=.venv/bin:$PATH bash docs/terminal.sh
set -euo pipefail
if [ "${1:-}" != play ]; then
    here=$(realpath "$(dirname "$0")")
    cd "$(mktemp -d)"
    asciinema rec --quiet --cols 112 --rows 26 --idle-time-limit 1.5 --command "bash $here/terminal.sh play" terminal.cast
    npx --yes svg-term-cli@2.1.1 --in terminal.cast --out "$here/terminal.svg" --window --no-cursor --padding 8
    exit
fi

type_and_run() {
    printf '\e[1;32m$\e[0m %s\n' "$1"
    sleep 1
    eval "$1"
}

type_and_run 'keras-prelu fit digits --steps 300'
type_and_run 'keras-prelu export runs/digits'
type_and_run 'keras-prelu serve runs/digits/export 2> serve.log &'
sleep 12
type_and_run 'curl -s http://localhost:8501/v1/models/digits/example > example.json'
type_and_run 'curl -s --data @example.json http://localhost:8501/v1/models/digits:predict'
for _ in 1 2 3; do  # longer pauses are cut
    sleep 1.4
    printf ' '
done
pkill -f 'keras-prelu serve' || true
