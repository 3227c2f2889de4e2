#!/bin/sh
# What a server says about itself and its models, in both dialects.
#   examples/curl/status.sh [HOST:PORT]
set -eu
server=http://${1:-localhost:8000}

show() {
    printf '\n# %s\n' "$*"
    curl -sS "$@"
    echo
}

show -o /dev/null -w 'ready: HTTP %{http_code}' "$server/v2/health/ready"
show "$server/v2"
show -X POST "$server/v2/repository/index"
show "$server/v2/models/simple"
show "$server/v2/models/simple/stats"
# What clients of the TensorRT Inference Server 18.x and 19.x ask for.
show "$server/api/status/simple"
