# Racklet. Two things to know:
#
#   make up      set up this machine if need be, build, and start the virtual rack
#   make test    everything that CI runs, and nothing else
#
# ARGS goes to racklet (make up ARGS="--units 1"), MIRROR names a Debian mirror for machines without
# apt (make build MIRROR=https://…), PKG and RUN narrow tests (make test PKG=./artifact/... RUN=Fuzz).

GO      ?= go
ARGS    ?=
MIRROR  ?=
PKG     ?= ./...
RUN     ?=
FUZZTIME ?= 10s
mirror  := $(if $(MIRROR),-mirror $(MIRROR))
# Without version control at hand (a source archive, somebody else's checkout) there is nothing to stamp.
vcs      = $(shell git rev-parse HEAD >/dev/null 2>&1 || echo -buildvcs=false)

.PHONY: help up setup build nodes kubernetes test test-kubernetes vet scenarios powercut fuzz bench update-locks check-locks clean

help:
	@sed -n '3,8s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

up: build
	@bin/racklet up $(ARGS)

setup:
	@command -v $(GO) >/dev/null || { echo "Racklet is written in Go and needs Go 1.26 or newer, which was not found: see https://go.dev/dl/"; exit 1; }
	@$(GO) run ./tools/setup $(for-tests) $(mirror)

build: setup
	@CGO_ENABLED=0 $(GO) build -trimpath $(vcs) -ldflags '-s -w' -o bin/racklet ./cmd/racklet
	@$(GO) run ./tools/release -o bin/release $(mirror)

# Kubernetes for this machine, and a release whose units are its nodes: make up ARGS="--release bin/release-node".
nodes: build kubernetes
	@$(GO) run ./tools/release -flavour node -o bin/release-node $(mirror)

kubernetes: setup
	@$(GO) run ./tools/kube -o bin/racklet-kube

test: for-tests = -test
test: build kubernetes vet
	@test -z "$(CI)" || $(GO) run ./tools/locks -check $(mirror) || echo "warning: a lock file is stale, or could not be checked: make update-locks"
	@$(GO) run ./tools/testtime -p 2 -timeout 30m $(if $(RUN),-run '$(RUN)') $(PKG)
	@test '$(PKG)' != ./... || $(MAKE) --no-print-directory test-kubernetes

# The second module; with the flags of its build, or all of Kubernetes would be compiled again.
test-kubernetes:
	@$(GO) build -o bin/testtime ./tools/testtime
	@cd system/kubernetes && export CGO_ENABLED=0 && $(GO) vet -trimpath ./... && ../../bin/testtime -trimpath -p 2 -timeout 10m $(if $(RUN),-run '$(RUN)') ./...

vet:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); test -z "$$unformatted" || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	@$(GO) vet ./...

# Kills whole racks at 5,000 seeded moments, and 160 that boot; about an hour.
powercut: build
	@$(GO) test ./sim/headless -run TestPowercut -count 1 -moments 5000 -timeout 3h -v
	@RACKLET_LONG=1 $(GO) test ./e2e -run TestPowercut -count 1 -timeout 2h -v

scenarios: build
	@$(GO) test ./e2e -run TestMachineScenarios -timeout 40m -v

hardware: build
	@bin/racklet hardware build bin/hardware $(ARGS)

fuzz:
	@$(GO) run ./tools/fuzz -time $(FUZZTIME) $(PKG)

bench: build
	@$(GO) test -run '^$$' -bench '$(or $(RUN),.)' $(PKG)

update-locks:
	@$(GO) run ./tools/locks $(mirror)

check-locks:
	@$(GO) run ./tools/locks -check $(mirror)

clean:
	@rm -rf bin
