# Coffer's front desk: `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN     := bin
CACHE   := .cache
TOOLS   := $(CURDIR)/$(CACHE)/bin
VERSION := $(shell cat VERSION)

# What each tag leaves out or puts in stands in CONTRIBUTING.md.
TAGS := containers_image_openpgp,containers_image_storage_stub,containers_image_docker_daemon_stub,netgo,osusergo,runc_nocriu,grpcnotrace,seccomp
# WITH is a tag more, as in make agent WITH=tracing.
export GOFLAGS := -buildvcs=false -tags=$(TAGS)$(WITH:%=,%)

# Tools that only build and test the project; none is linked into the agent.
GOLANGCI := v2.15.0
GOTESTSUM := v1.13.0

STATIC  := -s -w -extldflags "-static"
STAMP   := -X main.version=$(VERSION)
# The guest's clock never shows a time before its source was written.
BUILT   := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),0)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: go
go:
	@command -v go >/dev/null || { echo "make: Go is missing: install Go 1.21 or newer (it fetches the version that go.mod names by itself)" >&2; exit 1; }
	@v=$$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//'); \
	 [ "$$(printf '1.21\n%s\n' "$$v" | sort -V | head -1)" = 1.21 ] || { echo "make: Go $$v is too old: install Go 1.21 or newer" >&2; exit 1; }

.PHONY: deps
deps: ## install the Debian packages that building and testing need (root)
	@.ci/deps rootfs/host-packages

.PHONY: build
build: go deps agent ctl mkguest ## build the three binaries into bin/

.PHONY: agent
agent: go
	CGO_ENABLED=1 go build -trimpath -ldflags '$(STATIC) $(STAMP) -X main.built=$(BUILT)' -o $(BIN)/coffer-agent ./cmd/agent

.PHONY: ctl
ctl: go
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(STAMP)' -o $(BIN)/agent-ctl ./cmd/agent-ctl

.PHONY: mkguest
mkguest: go
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(STAMP)' -o $(BIN)/mkguest ./cmd/mkguest

.PHONY: guest
guest: build ## build the guest kernel and initrd into out/guest/
	$(BIN)/mkguest build --agent $(BIN)/coffer-agent --out out/guest

.PHONY: install
install: agent ## lay out what a guest's root needs below DESTDIR=
	install -D -m 0755 $(BIN)/coffer-agent $(DESTDIR)/usr/bin/kata-agent
	ln -sfn kata-agent $(DESTDIR)/usr/bin/coffer-agent
	install -D -m 0644 -t $(DESTDIR)/usr/lib/systemd/system rootfs/systemd/kata-agent.service rootfs/systemd/kata-containers.target
	install -D -m 0644 rootfs/image/default-policy.rego $(DESTDIR)/etc/kata-opa/default-policy.rego

.PHONY: test
test: build $(TOOLS)/gotestsum ## run every test, with the race detector, VM tests included
	@.ci/leftovers save $(CACHE)/before
	$(TOOLS)/gotestsum --format pkgname --format-hide-empty-pkg --jsonfile $(CACHE)/tests.json -- -race -count=1 -p 1 -timeout 25m ./...
	go vet -tags=$(TAGS),tracing ./rpc/tracing ./cmd/agent
	go test -tags=$(TAGS),tracing -race -count=1 ./rpc/tracing
	@.ci/leftovers compare $(CACHE)/before
	@.ci/proven $(CACHE)/tests.json

.PHONY: soak
soak: go ## what takes too long for every run: a gibibyte through each kind of stream, a caller that waits for its deadline
	COFFER_SOAK=1 go test -count=1 -timeout 30m -v -run '^(TestOutputIsExact|TestSilentDevice)$$' ./cmd/agent

.PHONY: cross
cross: go deps ## build the agent for arm64, s390x and ppc64le, and test it there under emulation
	@.ci/deps rootfs/cross-packages
	.ci/cross

.PHONY: lint
lint: go $(TOOLS)/golangci-lint ## vet and lint the tree
	@test -z "$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$'))" || { echo "gofmt: run 'make fmt'" >&2; exit 1; }
	$(TOOLS)/golangci-lint run --timeout 15m ./...
	$(TOOLS)/golangci-lint run --timeout 15m --build-tags=$(TAGS),tracing ./rpc/tracing

.PHONY: fmt
fmt: go ## format the Go files
	gofmt -w $$(git ls-files '*.go' | grep -v '\.pb\.go$$')

FUZZTIME ?= 60s
.PHONY: fuzz
fuzz: go deps ## run every fuzz target for FUZZTIME, a minute each
	.ci/fuzz $(FUZZTIME)

.PHONY: bench
bench: build ## run the Go benchmarks, then compare the agent with its rivals in one table (root)
	@.ci/leftovers save $(CACHE)/before
	BENCH='$(BENCH)' .ci/bench
	@.ci/leftovers compare $(CACHE)/before

.PHONY: demo
demo: build ## boot a guest, run an encrypted and signed image in it, and show three refusals
	.ci/demo

.PHONY: protos
protos: go ## regenerate protos/ from the .proto files
	protos/generate.sh

.PHONY: clean
clean: ## remove what was built (downloads in .cache stay)
	rm -rf $(BIN) out

$(TOOLS)/gotestsum:
	GOFLAGS= GOBIN=$(TOOLS) go install gotest.tools/gotestsum@$(GOTESTSUM)

$(TOOLS)/golangci-lint:
	GOFLAGS= GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
