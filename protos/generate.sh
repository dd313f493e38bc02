#!/bin/sh
# Regenerates the Go code of the messages and services and records what it was
# made from, so that a test can tell stale code without running any generator.
# Needs protoc (3.21) with google/protobuf/*.proto, protoc-gen-go v1.36.12 and
# protoc-gen-go-ttrpc v1.2.10; the last two are looked up in .cache/bin first.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.cache/bin:$PATH"
module=github.com/coffer-cc/coffer

rm -f protos/*/*.pb.go
protoc -I . \
	--go_out=. --go_opt=module=$module \
	--go-ttrpc_out=. --go-ttrpc_opt=module=$module \
	protos/*.proto
sha256sum protos/*.proto protos/*/*.pb.go >protos/SHA256SUMS
