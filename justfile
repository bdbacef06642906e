export TESTCONTAINERS_RYUK_DISABLED := "true" # its image cannot be pulled everywhere; the suite cleans up after itself

set positional-arguments # arguments keep their quotes

python := ".venv/bin/python"

# list the recipes
_default:
    @just --justfile '{{justfile()}}' --list --unsorted

# build and start everything, wait until it is healthy, say where to look
up workers="8": _engine
    @compose/base/up.sh "$@"

# stop everything; the broker's data stays
down: _engine
    docker compose down --remove-orphans

# a local CA and a certificate for compose/tls.yml; --force renews
certs *args:
    @compose/base/certs.sh "$@"

# the operator's command: just rabbitbal pools list (just rabbitbal --help)
[no-exit-message]
rabbitbal *args: _engine
    @compose/base/rabbitbal.sh "$@"

# follow the logs, of one service or of all
logs *service: _engine
    docker compose logs --follow --tail 100 "$@"

# tests that need no Docker: all, or those in the files that are named
unit *args: _venv
    {{python}} -m pytest --ignore tests/integration "$@"

# every test, those against a real deployment included
test *args: _venv _engine _chromium
    {{python}} -m pytest -ra "$@"

# lint, formatting and types
check: _venv
    {{python}} -m ruff check
    {{python}} -m ruff format --check
    {{python}} -m mypy wire services tests loadtests compose/demo

# format the code, mend what the linter can
fmt: _venv
    {{python}} -m ruff check --fix-only
    {{python}} -m ruff format

# pin and hash the requirements again; --upgrade takes newer versions
lock *args:
    @compose/base/lock.sh "$@"

# load test of the running deployment, with locust's web page on http://127.0.0.1:8089/
load *args: _venv
    @compose/base/load.sh locust --web-host 127.0.0.1 --web-port 8089 "$@"

# load test of the running deployment, as a table
load-headless users="50" rate="25" time="30s": _venv
    @compose/base/load.sh locust --headless --only-summary --users {{users}} --spawn-rate {{rate}} --run-time {{time}}

# open-loop load with books: what was sent, how it ended, what ran twice (--help)
load-open *args: _venv
    @compose/base/load.sh open "$@"

# measure streams: memory under large bodies, slow readers, the lag of events and of WebSockets (--help)
load-streams *args: _venv
    @compose/base/load.sh streams "$@"

# move capacity between two URIs under load, and draw what happened; a deployment of its own (--help)
load-shift *args: _venv _engine
    {{python}} loadtests/shift.py "$@"

# one request to several pools: first, hedge, all; a deployment of its own (--help)
load-copies *args: _venv _engine
    {{python}} loadtests/copies.py "$@"

# what the tap costs clients: running, stopped, frozen, slow, its queue full; a deployment of its own (--help)
load-tap *args: _venv _engine
    {{python}} loadtests/tap.py "$@"

# the tap's books beside the clients' own count, with kills on the way; a deployment of its own (--help)
load-books *args: _venv _engine
    {{python}} loadtests/books.py "$@"

# what a table of a thousand routes costs the edge; a deployment of its own (--help)
load-routing *args: _venv _engine
    {{python}} loadtests/routing.py "$@"

# the page in a real browser under load: frames, memory, screenshots; a deployment of its own (--help)
load-page *args: _venv _engine _chromium
    {{python}} loadtests/page.py "$@"

# remove containers, volumes, images, .venv and caches
clean:
    @compose/base/clean.sh

_engine:
    @compose/base/engine.sh

_chromium:
    @compose/base/chromium.sh

_venv:
    @compose/base/venv.sh
