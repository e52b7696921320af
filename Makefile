# Everything a user or contributor runs. `make help` lists it.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PY := $(VENV)/bin/python
# The system's Go when it is recent enough, or else the one of the lock file.
GO = $(shell command -v go >/dev/null 2>&1 && go version | grep -qE 'go1\.(2[5-9]|[3-9][0-9])' && command -v go || echo $(CURDIR)/$(VENV)/bin/go)
GO_RUN = cd go-contract && CGO_ENABLED=0 $(GO)
MODELS := models
export GO
export GOFLAGS := -mod=readonly

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

# --- setting up ---

.PHONY: setup
setup: $(VENV)/.ready ## Create .venv with everything that is needed (the other targets do it by themselves)

$(VENV)/.ready: requirements/dev.txt sidecar/pyproject.toml training/pyproject.toml
	@echo "Setting up $(VENV); the first time downloads about 800 MB."
	@test -x $(PY) || python3 -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e sidecar -e training
	@touch $@

.PHONY: lock
lock: ## Write requirements/*.txt anew from requirements/*.in, all with the versions of dev.txt
	@lock() { $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header "$$@"; }; \
	  lock requirements/dev.in -o requirements/dev.txt && \
	  for name in serve train; do lock -c requirements/dev.txt requirements/$$name.in -o requirements/$$name.txt; done

# --- the main job ---

.PHONY: train-synthetic
train-synthetic: $(MODELS)/.synthetic ## Train both models on made-up data and publish them in models/

$(MODELS)/.synthetic: $(VENV)/.ready
	@$(PY) training/train_isolation_forest.py --synthetic --output $(MODELS)
	@$(PY) training/train_lstm_autoencoder.py --synthetic --output $(MODELS)
	@$(VENV)/bin/dwcp-sidecar check --models $(MODELS)
	@touch $@

.PHONY: retrain
retrain: $(VENV)/.ready ## Train on newer rows and promote what is better: make retrain DATA=normal.csv FLAGS=--dry-run
	@$(VENV)/bin/dwcp retrain --models $(MODELS) $(addprefix --data ,$(DATA)) $(FLAGS)

.PHONY: serve
serve: train-synthetic ## Serve models/ on 127.0.0.1:50051
	@$(VENV)/bin/dwcp-sidecar serve --models $(MODELS)

.PHONY: demo
demo: $(VENV)/.ready ## The whole way on the measured link of ../shared/data/linklab: train, serve, score from Go, compare
	@$(PY) tests/demo/demo.py

# --- tests ---

.PHONY: test
test: $(VENV)/.ready ## Everything that must pass, in under ten minutes
	@$(MAKE) --no-print-directory lint check-breaking check-generate
	@mkdir -p build
	@(cd go-contract && CGO_ENABLED=0 $(GO) vet ./... && CGO_ENABLED=0 $(GO) test -p 1 ./...) >build/go-test.log 2>&1 & \
	  go=$$!; \
	  $(PY) -m pytest tests -q -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'; python=$$?; \
	  wait $$go; go=$$?; cat build/go-test.log; exit $$((python || go))

.PHONY: test-slow
test-slow: $(VENV)/.ready ## The tests that make test leaves out for their length: faults of the sidecars, the serving benchmark's own
	@$(PY) -m pytest tests -q -n 2 --dist loadfile --no-loadscope-reorder -m slow

.PHONY: lint
lint: $(VENV)/.ready ## Formatting, style and schema checks
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/buf lint
	@test -z "$$(cd go-contract && $(dir $(GO))gofmt -l . | grep -v '^gen/')" || { echo "gofmt is needed in go-contract"; exit 1; }

.PHONY: test-race
test-race: $(VENV)/.ready ## Go tests under the race detector (needs a C compiler)
	@cd go-contract && CGO_ENABLED=1 $(GO) test -race ./...

.PHONY: test-onnxruntime
test-onnxruntime: $(VENV)/.ready ## Go tests with the ONNX Runtime backend (needs a C compiler)
	@cd go-contract && CGO_ENABLED=1 $(GO) test -tags onnxruntime ./...

.PHONY: parity
parity: $(VENV)/.ready ## The full proof: every implementation on 100,000 inputs a detector, 20,000 of the newer ones
	@$(PY) -m tests.conformance.judge --inputs 100000
	@$(PY) -m tests.conformance.judge --models models/reference/more-v1 --inputs 20000
	@$(PY) -m tests.conformance.judge --models models/reference/ensemble-v1 --inputs 20000
	@$(PY) -m tests.conformance.judge --models models/reference/mahalanobis-v1 --inputs 20000
	@$(PY) -m tests.conformance.judge --models models/reference/ensemble-v2 --inputs 20000

.PHONY: test-arm64
test-arm64: $(VENV)/.ready ## Go vectors under qemu-user, where the compiler fuses multiply-adds (needs qemu-user)
	@bash tests/arm64/run.sh

.PHONY: fuzz
fuzz: $(VENV)/.ready ## Fuzz tests of Go and Python, a minute each
	@bash tests/fuzz/run.sh

.PHONY: soak
soak: $(VENV)/.ready ## Ten minutes of everything at once for every sidecar: no wrong score, no growing memory
	@$(PY) -m tests.faults.soak

.PHONY: bench
bench: $(VENV)/.ready ## Measure: graphs, Go scorers, memory, training, and both sidecars against other servers (some 25 minutes)
	@$(PY) tests/bench/bench.py

.PHONY: capacity
capacity: $(VENV)/.ready ## Measure what one sample costs, write docs/capacity.md: cores and memory for N links (some four minutes)
	@$(PY) -m tests.bench.capacity --write docs/capacity.md

.PHONY: quality
quality: $(VENV)/.ready ## Measure detection quality on ../shared/data and write docs/quality.md (an hour or more; goes on where it ended)
	@$(PY) -m tests.bench.quality --write docs/quality.md

.PHONY: extras
extras: ## Fetch Prometheus for the tests of deploy/ (unpacked in build/extras) and, as root, install Chromium for those of reports
	@bash tests/deploy/extras.sh

# --- generated code ---

.PHONY: generate
generate: $(VENV)/.ready ## Write generated code anew
	@PYTHON=$(PY) GO=$(GO) bash proto/generate.sh

.PHONY: check-generate
check-generate: $(VENV)/.ready ## Demand that generated code is current
	@rm -rf build/generated && PYTHON=$(PY) GO=$(GO) bash proto/generate.sh build/generated
	@diff -r --exclude=__pycache__ build/generated/sidecar/src/dwcp sidecar/src/dwcp \
	  && diff -r build/generated/go-contract/gen go-contract/gen \
	  || { echo "Generated code is not current: run make generate."; exit 1; }

.PHONY: check-breaking
check-breaking: $(VENV)/.ready ## Demand that the schemas still read what version 1 wrote
	@$(VENV)/bin/buf breaking --against proto/frozen/v1.binpb

.PHONY: clean
clean: ## Remove what was built and trained; the reference set stays
	@rm -rf build $(MODELS)/.synthetic $(MODELS)/.lock $(MODELS)/current $(MODELS)/releases $(MODELS)/history.jsonl $(MODELS)/.retrain
	@find $(MODELS) -maxdepth 1 -type l -delete
