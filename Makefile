# Needs Go, make and git; some of the tests' peers need Node.js with npm, and Python. Everything else is installed into
# .tools/ by the targets that use it.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help

# What `bellhop version` says. A tree without git, such as an unpacked archive, is a dev version.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# One set of flags for building, testing and analysing: the compiler's cache is keyed by them, and with a second set
# everything is compiled twice. Without cgo the binaries are static.
export GOFLAGS := $(strip $(filter-out -trimpath,$(GOFLAGS)) -trimpath)
export CGO_ENABLED := 0

LDFLAGS := -s -w -X main.version=$(VERSION)
# What to test, and how: make test PKG=./workflows/... TESTFLAGS='-run Cancel -v'
PKG ?= ./...
TESTFLAGS ?=
# -count=1: the tests run binaries, which go test's own cache knows nothing of.
GOTEST := go test -count=1 -timeout 40m

# The product's modules. The tool modules under tests/tools have no code of ours.
MODULES := . tests/devserver
TIDY := $(dir $(shell git ls-files '*go.mod' 2>/dev/null))
SCRIPTS = $(shell git ls-files '*.sh' .ci/run 2>/dev/null)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/bellhop, bin/bellhop-worker and bin/bellhop-devserver
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/bellhop ./starter
	go build -ldflags '$(LDFLAGS)' -o bin/bellhop-worker ./worker
	go build -C tests/devserver -ldflags '$(LDFLAGS)' -o ../../bin/bellhop-devserver .

.PHONY: test
test: build ## run every test; what their peers lack is installed, or skipped
	@sh tests/peers/with.sh sh -c 'rc=0; \
		$(GOTEST) $(TESTFLAGS) $(PKG) || rc=1; \
		(cd tests/devserver && $(GOTEST) $(TESTFLAGS) ./...) || rc=1; \
		exit $$rc'

.PHONY: test-race
test-race: build ## run the short tests under the race detector; needs a C compiler
	@CGO_ENABLED=1 sh tests/peers/with.sh sh -c 'rc=0; \
		$(GOTEST) -race -short $(TESTFLAGS) $(PKG) || rc=1; \
		exit $$rc'

# How long each fuzz target runs.
FUZZTIME ?= 60s

.PHONY: fuzz
fuzz: ## look for inputs that take too much memory or time, or show a secret; FUZZTIME=10m for longer
	@sh tests/tools/fuzz.sh $(FUZZTIME)

.PHONY: soak
soak: build ## run the fault tests with the full counts: hours; SOAK=Mixed for those so named
	@BELLHOP_SOAK=1 BELLHOP_KILLS=50 sh tests/peers/with.sh \
		go test -count=1 -timeout 8h -v -run '$(or $(SOAK),Fault|Killed|AcknowledgementIsLost)' ./tests

.PHONY: bench
bench: build ## measure bellhop beside bare Temporal workflows; BENCH='-scenario hold' for 50,000 that wait, 'providers' for what waiting costs each
	@go run ./tests/bench $(BENCH)
	@go test -run '^$$' -bench . -benchmem ./activities/simulated

.PHONY: docs
docs: ## write the tables of the reference pages anew
	@go test -count=1 ./tests/docs -update

.PHONY: demo
demo: ## show bellhop at work on this machine; leaves nothing behind
	@go run ./tests/demo

.PHONY: dev
dev: ## run the Temporal server and a worker until Ctrl-C
	@go run ./tests/demo -dev

.PHONY: lint
lint: ## check everything that can be checked without running it
	@sh tests/tools/install.sh golangci-lint workflowcheck docker-compose
	@sh tests/tools/lint.sh "$(MODULES)" "$(TIDY)" "$(SCRIPTS)"

.PHONY: fmt
fmt: ## format the Go code
	@sh tests/tools/install.sh golangci-lint
	@for module in $(MODULES); do (cd "$$module" && $(CURDIR)/.tools/bin/golangci-lint fmt); done

.PHONY: tools
tools: ## install all tools and peers into .tools/
	@sh tests/tools/install.sh temporal restate-server stepfunctions ministack webhook-libraries golangci-lint workflowcheck docker-compose kubernetes

.PHONY: clean
clean: ## remove the binaries; .tools/ stays (make distclean)
	rm -rf bin

.PHONY: distclean
distclean: clean ## remove .tools/ as well
	@sh tests/peers/docker.sh stop
	rm -rf .tools
