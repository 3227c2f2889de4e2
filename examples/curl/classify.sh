#!/bin/sh
# The three largest values of `simple`'s sum, with their labels (config: label_filename).
#   examples/curl/classify.sh [HOST:PORT]
set -eu
curl --fail-with-body -sS "http://${1:-localhost:8000}/v2/models/simple/infer" -d '{
  "inputs": [
    {"name": "INPUT0", "datatype": "INT32", "shape": [1, 16],
     "data": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]},
    {"name": "INPUT1", "datatype": "INT32", "shape": [1, 16],
     "data": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]}
  ],
  "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 3}}]
}'
echo
