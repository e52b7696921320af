#!/usr/bin/env bash
# Writes the generated Python and Go code of the schemas below a folder, by default the project's root.
#   PYTHON=.venv/bin/python GO=go proto/generate.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-.}
python=${PYTHON:-.venv/bin/python}
go=${GO:-go}
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
(cd go-contract && GOBIN="$tools" "$go" install tool)
mkdir -p "$out/sidecar/src" "$out/go-contract"
"$python" -m grpc_tools.protoc -I proto \
  --python_out="$out/sidecar/src" --pyi_out="$out/sidecar/src" --grpc_python_out="$out/sidecar/src" \
  proto/dwcp/anomaly/v1/*.proto proto/dwcp/oip/v2/inference.proto proto/dwcp/onnx/v1/onnx.proto
# A schema without a service needs no service code.
find "$out/sidecar/src/dwcp" -name '*_pb2_grpc.py' ! -name 'scoring_pb2_grpc.py' ! -name 'inference_pb2_grpc.py' -delete
"$python" -m grpc_tools.protoc -I proto \
  --plugin=protoc-gen-go="$tools/protoc-gen-go" --plugin=protoc-gen-go-grpc="$tools/protoc-gen-go-grpc" \
  --go_out="$out/go-contract" --go_opt=module=dwcp.internal/anomaly \
  --go-grpc_out="$out/go-contract" --go-grpc_opt=module=dwcp.internal/anomaly \
  proto/dwcp/anomaly/v1/*.proto proto/dwcp/oip/v2/inference.proto
