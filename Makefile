# Every step of development and CI is a target here; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
PROFILE ?= sample
PORT ?= 8080
UI_PORT ?= 8501
MLFLOW_PORT ?= 5000
# Which tests `make test` runs, and whether they count coverage, e.g. on another Python:
#   make test PYTHON=python3.12 VENV=.venv312 TESTS="not system and not engine and not slow"
TESTS ?= not system and not engine
# Folders or files to test; empty: all
ONLY ?=
# Which of the system tests, e.g. SYSTEM=system: those of many minutes, too
SYSTEM ?= system and not nightly
COVERAGE ?=
# Test processes side by side; auto: three for two cores, as many tests wait
TEST_PROCESSES ?= auto
# Another index for torch, e.g. one with CPU builds (0.2 GB instead of 5.5 GB):  make run TORCH_INDEX=URL
TORCH_INDEX ?=
# Arguments of the benchmarks, e.g. BENCH='--only serving --quick', and how long a soak lasts
BENCH ?=
SOAK_MINUTES ?= 10
EXTRAS := serve provenance train pipeline local gcp ui dev
LOCK := infra/requirements.txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export MPLBACKEND := Agg
# Each of some hundred processes would compile torch, MLflow and KFP anew
unexport PYTHONDONTWRITEBYTECODE
# as serving/platform/settings.py tells our own processes
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := true
export HF_HUB_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export ORT_DISABLE_TELEMETRY := 1
export RAY_USAGE_STATS_ENABLED := 0
export STREAMLIT_BROWSER_GATHER_USAGE_STATS := false

# The commands of an environment name the place where it was made, and so does the code that they import
MADE_IN := $(shell sed -n '1s|^\#!\(/.*\)/python[0-9.]*$$|\1|p' $(BIN)/aidetect 2>/dev/null)
ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),help)),)
ifneq ($(and $(MADE_IN),$(filter-out $(realpath $(BIN)),$(or $(realpath $(MADE_IN)),gone))),)
$(error $(VENV) was made in $(MADE_IN): this folder was moved or copied; remove it (rm -rf $(VENV)) and run make again)
endif
endif

.PHONY: help
help: ## Show the targets
	@if [ -t 1 ]; then bold=$$'\033[1m' plain=$$'\033[0m'; else bold= plain=; fi; \
	awk -v bold="$$bold" -v plain="$$plain" 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  %s%-12s%s %s\n", bold, $$1, plain, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; assert (3,11) <= sys.version_info[:2] <= (3,12), "use Python 3.11 or 3.12: make PYTHON=python3.11"'
	@$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml $(LOCK) infra/install.sh | $(BIN)/python
	@echo "installing into $(VENV) (3 GB the first time; TORCH_INDEX=URL takes a smaller torch)"
	@TORCH_INDEX=$(TORCH_INDEX) infra/install.sh $(BIN)/python --editable $(EXTRAS)
	@touch $@

# What one target alone needs, e.g. .with-dvc
$(VENV)/.with-%: $(STAMP)
	@infra/install.sh $(BIN)/python $*
	@touch $@

.PHONY: lock
lock: | $(BIN)/python ## Compile infra/requirements.txt from pyproject.toml; UPGRADE=NAME takes its newest, UPGRADE=1 that of all
	@infra/install.sh $(BIN)/python
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11.0 --all-extras --generate-hashes --no-annotate \
	  --custom-compile-command 'make lock' $(if $(filter 1,$(UPGRADE)),--upgrade,$(addprefix --upgrade-package ,$(UPGRADE))) \
	  --output-file $(LOCK) pyproject.toml
	@# what holds of every line says nothing of one
	@sed -E -i "s/ ; python_full_version < '3\.13' and \(sys_platform == 'darwin' or sys_platform == 'linux'\) / /" $(LOCK)

.PHONY: setup
setup: $(STAMP) ## Set up .venv and nothing else

.PHONY: dev
dev: $(STAMP) ## Set up .venv and the pre-commit hooks
	@$(BIN)/pre-commit install

.PHONY: run
run: $(STAMP) ## Run the whole pipeline on the shipped sample, from raw images to a served champion
	@$(BIN)/aidetect run --profile $(PROFILE) --on local

.PHONY: data
data: $(STAMP) ## Download CIFAKE (120,000 images) into data/cifake
	@$(BIN)/aidetect data download cifake --output data/cifake

.PHONY: train
train: $(STAMP) ## Train, evaluate and judge, but deploy nothing: what passes waits as challenger
	@$(BIN)/aidetect run --profile $(PROFILE) --on local --set deploy.auto=false

.PHONY: dvc-repro
dvc-repro: $(VENV)/.with-dvc ## Verify, train, evaluate with DVC: runs again only what a change touches
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro evaluate@$(PROFILE)

.PHONY: notebook
notebook: $(VENV)/.with-notebook ## Run the notebook from top to bottom on the shipped sample, into build/
	@mkdir -p build
	@$(BIN)/jupyter execute notebooks/train_colab.ipynb "--output=$(CURDIR)/build/train_colab.ipynb"

.PHONY: docs
docs: $(VENV)/.with-docs ## Write the generated references and build the guides to site/
	@$(BIN)/python -m docs.generate
	@$(BIN)/mkdocs build --strict --quiet

.PHONY: serve
serve: $(STAMP) ## Serve the champion on http://127.0.0.1:8080
	@$(BIN)/aidetect serve --profile $(PROFILE) --port $(PORT)

.PHONY: ui
ui: $(STAMP) ## Open the page of the service on http://127.0.0.1:8501 (needs `make serve`)
	@$(BIN)/streamlit run serving/ui/app.py --server.address 127.0.0.1 --server.port $(UI_PORT) --server.headless true || \
	  { printf 'the page has stopped; if its port is taken, choose another one: make ui UI_PORT=8502\n' >&2 && exit 1; }

.PHONY: mlflow
mlflow: $(STAMP) ## Browse runs and models on http://127.0.0.1:5000
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --backend-store-uri sqlite:///workspace/mlflow.db --host 127.0.0.1 --port $(MLFLOW_PORT) --workers 1

.PHONY: compile
compile: $(STAMP) ## Compile the pipeline for Vertex AI to build/pipeline.json
	@mkdir -p build
	@$(BIN)/aidetect compile --target vertex -o build/pipeline.json

.PHONY: test
test: $(STAMP) ## Run the tests on every core (COVERAGE=yes counts lines, >= 90 %); needs no network, no root, no service
	@$(if $(COVERAGE),$(BIN)/coverage erase)
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n $(TEST_PROCESSES) --dist worksteal -m "$(TESTS)" $(ONLY) $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

.PHONY: test-system
test-system: $(addprefix $(VENV)/.with-,load dvc notebook docs mlflow ray) ## Run the tests that need Debian packages: Redis, Prometheus, Chromium; and the load generators (root)
	@infra/ci/packages.sh redis-server postgresql prometheus prometheus-alertmanager chromium libavif-bin gcc libc6-dev
	@# some wait, so that there are more processes than cores; and only files with such tests are imported
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --durations=20 -m "$(SYSTEM) and not alone" $$(grep -rlE 'mark\.system' tests --include='test_*.py')
	@OMP_NUM_THREADS=1 $(BIN)/pytest --durations=20 -m "$(SYSTEM) and alone" $$(grep -rlE 'mark\.alone' tests --include='test_*.py')

.PHONY: lint
lint: $(STAMP) ## Check style, types, the import rules and for dead code
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m infra.notebook_types
	@$(BIN)/lint-imports
	@$(BIN)/vulture

.PHONY: mutate
mutate: $(VENV)/.with-mutate ## Change what decides in small ways: which changes does no quick test notice? (half an hour)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutate

.PHONY: format
format: $(STAMP) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(STAMP) ## Measure against the targets: verify_data, training input, server, evidence
	@$(BIN)/python -m tests.bench $(BENCH)

.PHONY: soak
soak: $(STAMP) ## Load the server for ten minutes: memory flat, no 5xx
	@$(BIN)/python -m tests.load.soak --minutes $(SOAK_MINUTES)

.PHONY: images
images: ## Build the images (needs a Docker Engine)
	@infra/ci/images.sh build

.PHONY: check-images
check-images: ## Build the images and prove their sizes, users and contents
	@infra/ci/images.sh

.PHONY: check-compose
check-compose: ## Bring the compose stack up, ask it what it promises, take it down
	@infra/ci/compose.sh

.PHONY: rehearse
rehearse: $(STAMP) ## Rehearse the cloud run offline: submit, six stages in containers, registry, canary, a refusal, a rollback
	@VENV=$(VENV) infra/ci/rehearse.sh

.PHONY: check-static
check-static: ## Check Dockerfile, workflows, Terraform, scripts and secrets without running them
	@infra/ci/static.sh

.PHONY: check-terraform
check-terraform: ## Validate and test the Terraform code
	@infra/ci/terraform.sh

.PHONY: check-workflows
check-workflows: $(STAMP) ## Rehearse the GitHub workflows with act
	@infra/ci/act.sh

.PHONY: check-security
check-security: $(STAMP) ## Look up known vulnerabilities of every package; attack a server (URL=... one of yours, on loopback)
	@VENV=$(VENV) infra/ci/security.sh

.PHONY: up
up: ## Start API, UI, MLflow, Prometheus, Grafana with Docker Compose
	@docker compose up -d

.PHONY: down
down: ## Stop what `make up` started
	@docker compose down

.PHONY: clean
clean: ## Remove what builds and tests left (keeps .venv and workspace)
	@rm -rf build dist mutants site .pytest_cache .mypy_cache .ruff_cache .coverage* htmlcov .hypothesis .import_linter_cache
