# Every target works from nothing: it makes .venv first, and makes it again when the lock or the project's metadata change.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
BOOTSTRAPPED := $(VENV)/.bootstrapped
INSTALLED := $(VENV)/.installed
WHEELS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/adapter-training-operator/wheels
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check
BOOTSTRAP = PIP_NO_INDEX=1 PIP_FIND_LINKS=$(WHEELS) $(PIP) install --require-hashes --requirement requirements/bootstrap.txt
SYNC = $(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.txt
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

# Which Kubernetes is compiled and tested with: empty for the newest that is pinned, or 1.34.
export KUBERNETES ?=

# Every process that a test starts imports our modules: where Python may not keep them compiled, it compiles them each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install check format test test-pure test-cluster test-stores test-all compiled demo demo-openmoji example-data bench crash-matrix package check-chart sbom test-kueue test-cert-manager cluster-up cluster-down e2e generate golden lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(INSTALLED) ## Make .venv for developers (7 GB): exactly the locked packages, and the project itself, editable

check: $(INSTALLED) ## Lint, check formatting, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## Fix what ruff can fix, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Workers start with what takes longest; each keeps to a file, so that a file's object store and first run are made once.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Most tests wait most of the time, for an agent, a store or a trainer: one worker more than cores.
WORKERS ?= $(shell expr $$(nproc) + 1)
MORE = @printf '%s\n' 'What else there is:' '  make test-cluster   operator, CRD, chart and S3 servers on what Go compiles' \
	'  make e2e            real pods on a cluster of this machine (root)' '  make check          lint, formatting, types, direction of imports'

test: $(INSTALLED) ## Run the tests that need nothing else: real store, agents, trainers, command; minutes
	$(PYTEST) -m "not cluster and not e2e"
	$(MORE)

test-pure: $(INSTALLED) ## Run the tests that start no process; most of its minutes go to counting whole models
	$(PYTEST) -m "not process and not cluster and not e2e"

test-cluster: $(INSTALLED) compiled ## Run the tests on a Kubernetes control plane (KUBERNETES=1.34: an old one) and a second S3 server
	$(PYTEST) -m cluster

test-stores: $(INSTALLED) compiled ## Test two checkpoints and a kill on every S3 server; prints the table of docs/checkpoints.md
	$(BIN)/python -m tests.stores.support.table

test-all: $(INSTALLED) compiled ## Run every test except those of `make e2e`; names pins of other programs older than six months
	@$(BIN)/python -m tests.cluster pins
	$(PYTEST) -m "not e2e"

compiled: $(INSTALLED) ## Compile what `make test-cluster` needs, with Go; takes ten minutes, once
	@$(BIN)/python -m tests.cluster build --for tests

demo: $(INSTALLED) ## Train adapters on a small frozen base, on two nodes; ends with a picture, a table, and what to try next
	$(BIN)/python -m demo

demo-openmoji: $(INSTALLED) ## Train emoji from caption, group, line art and features; shows what each adds; takes about an hour
	$(BIN)/python -m demo.openmoji_run

example-data: $(INSTALLED) ## Write the data that configs/example.yaml trains on to data/digits
	$(BIN)/python -m demo.digits data/digits

bench: $(INSTALLED) ## Measure against other implementations; writes docs/benchmarks.md (ONLY="step start" runs some sections)
	$(BIN)/python -m benchmarks $(ONLY)

package: $(INSTALLED) compiled ## Write the chart to dist/, as an OCI registry takes it; pushing it is in docs/kubernetes.md
	$(BIN)/python -m tests.chart.support.package dist

check-chart: $(INSTALLED) compiled build/scan ## Let an API server and checkov look over every rendering of tests/chart/values
	$(BIN)/python -m pytest tests/chart
	$(BIN)/python -m tests.chart.support.scan build/scan/bin/checkov

sbom: build/sbom ## Write the packages of both images to dist/, as CycloneDX, from the locks that they are built from
	@mkdir -p dist
	build/sbom/bin/cyclonedx-py requirements requirements/operator.txt --output-reproducible -o dist/operator.cdx.json
	build/sbom/bin/cyclonedx-py requirements requirements.txt --output-reproducible -o dist/trainer.cdx.json

test-kueue: $(INSTALLED) ## Run jobs with a queue name under Kueue itself, which Go compiles first; a few minutes
	$(BIN)/python -m pytest tests/integrations/test_kueue.py

test-cert-manager: $(INSTALLED) ## Install the chart with certificates by cert-manager itself, which Go compiles first; a few minutes
	$(BIN)/python -m pytest tests/integrations/test_cert_manager.py

crash-matrix: $(INSTALLED) ## Kill agents, trainers and object stores at 200 steps of the protocol, in four ways each; hours
	CRASH_RUNS=200 FENCING_RUNS=20 $(BIN)/python -m pytest -s tests/agent/test_crash_matrix.py

cluster-up: $(INSTALLED) ## Start a Kubernetes on this machine, or use the one of KUBECONFIG
	$(BIN)/python -m tests.cluster up

cluster-down: $(INSTALLED) ## Stop that Kubernetes and remove all of it
	$(BIN)/python -m tests.cluster down

e2e: $(INSTALLED) ## Build the images, install the chart, and run the end-to-end tests on the cluster
	$(BIN)/python -m pytest tests/e2e

generate: $(INSTALLED) ## Write the CRD, the reference of all fields and the schemas for editors from the models
	$(BIN)/python -m adapter_api.crd
	$(BIN)/python -m adapter_api.reference

golden: $(INSTALLED) ## Write the golden manifests again; read the difference before you commit it
	WRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/operator/act/test_manifests.py

lock: $(BOOTSTRAPPED) ## Resolve requirements again from pyproject.toml, with hashes
	$(COMPILE) pyproject.toml --extra local --extra operator --extra dev -o requirements/dev.txt
	$(COMPILE) --group trainer -c requirements/dev.txt -o requirements.txt
	$(COMPILE) --group operator -c requirements/dev.txt -o requirements/operator.txt
	$(COMPILE) -c requirements/dev.txt requirements/bootstrap.in -o requirements/bootstrap.txt
	$(COMPILE) requirements/scan.in -o requirements/scan.txt
	$(COMPILE) requirements/sbom.in -o requirements/sbom.txt

clean: ## Remove the environment, caches and build products
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Tools with an environment of their own, made from nothing when their lock changes.
build/scan build/sbom: build/%: requirements/%.txt $(BOOTSTRAPPED)
	@rm -rf $@ && $(UV) venv --quiet --python $(BIN)/python $@
	$(UV) pip sync --quiet --python $@/bin/python --require-hashes $<
	@touch $@

# Two stamps, each written when its step has ended: an interrupted install continues at the step that was interrupted.
# The wheels of this first step are kept, so that the next clone, and one without a network, takes them from there.
$(BOOTSTRAPPED): requirements/bootstrap.txt
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(WHEELS)
	@$(BOOTSTRAP) 2>/dev/null || { $(PIP) download --dest $(WHEELS) --requirement $< && $(BOOTSTRAP); }
	@touch $@

# A new package has to be installed once more before Python finds it, so each one's __init__.py counts too.
# Bytecode is compiled once, here: where Python may not write it, every start of a process would compile torch again.
$(INSTALLED): $(BOOTSTRAPPED) requirements/dev.txt pyproject.toml $(wildcard */*/__init__.py)
	@echo "installing $$(grep -c '^[a-z]' requirements/dev.txt) locked packages for developers into $(VENV): 7 GB on the disk, 4 of them"
	@echo "torch's CUDA. A minute or two from a warm cache; a cold one downloads half of that first. For users, and less: docs/install.md"
	@$(SYNC) || { echo "trying again with what the package cache holds" >&2; $(SYNC) --offline; }
	$(UV) pip install --quiet --offline --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
