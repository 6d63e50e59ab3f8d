# `make` lists what can be made. Everything is installed into .venv and the user's cache, nothing elsewhere.

PYTHON ?= python3
ARGS ?=

bin := .venv/bin
stamp := .venv/.installed
devcluster := PYTHONPATH=deploy $(bin)/python -m devcluster
peers := $(HOME)/.cache/tuneyard/peers
wants := benchmarks/peers/requirements
root := $(filter Linux-0,$(shell uname)-$(shell id -u))# real nodes take root on Linux

# Small matrices are multiplied faster by one thread, and what runs beside it is not held up.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

.SILENT:
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit test-e2e check crds lock tools images cluster cluster-fake cluster-load cluster-down bench-throughput bench-laptop bench-scheduling bench-placing bench-simulation bench-ask bench-search bench-ablation bench-fidelity bench-pareto bench-recommended bench-schedules peers bench-install clean

help: ## list the targets
	sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-26s%s\n", $$1, $$2 }'

setup: $(stamp) ## install what Tuneyard and its development need into .venv

$(stamp): requirements.lock pyproject.toml deploy/tools/uv.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Tuneyard needs Python 3.11 or newer and $(PYTHON) is " + sys.version.split()[0] + "; name another: make setup PYTHON=python3.12")'
	echo "Installing into .venv ..."
	$(PYTHON) -m venv .venv
	test -x $(bin)/uv || $(bin)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/tools/uv.txt
	$(bin)/uv pip install --quiet --python $(bin)/python --require-hashes -r requirements.lock
	$(bin)/uv pip install --quiet --python $(bin)/python --no-deps --no-build-isolation --editable .
	touch $(stamp)

demo: setup ## search for a good neural network on this machine, no cluster needed
	$(bin)/tuneyard run examples/digits.yaml

test: setup tools $(if $(root),images) ## run all tests that this machine allows, on real clusters too (ARGS: for pytest, which then runs once)
ifeq ($(ARGS),)
	$(bin)/pytest --numprocesses auto --dist worksteal -m "not integration and not e2e"
	$(bin)/pytest -m "integration or e2e"
else
	$(bin)/pytest $(ARGS)
endif

test-unit: setup ## run the tests that need no API server (ARGS: for pytest)
	$(bin)/pytest -m "not integration and not e2e" $(ARGS)

test-e2e: setup tools $(if $(root),images) ## run the tests in real containers: root on Linux, or TUNEYARD_E2E_KUBECONFIG
	$(bin)/pytest -m e2e $(ARGS)

check: setup ## lint, formatting, types, import contracts, generated files
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/lint-imports
	$(bin)/python -m tuneyard_api.generate --check
	$(bin)/python -m tuneyard_strategy.openapi --check

crds: setup ## generate the CRDs, the admission policy and the OpenAPI description from the models
	$(bin)/python -m tuneyard_api.generate
	$(bin)/python -m tuneyard_strategy.openapi

lock: setup ## resolve the dependencies anew into requirements.lock, and those of peers (ARGS: for uv, such as --upgrade)
	$(bin)/uv pip compile pyproject.toml --all-extras --group dev --universal --generate-hashes --no-header --quiet \
		--output-file requirements.lock $(ARGS)
	for wanted in $(wants)/*.in $(wants)/heavy/*.in; do \
		name=$${wanted%.in}; override=; \
		test ! -f $$name.override || override="--override $$name.override"; \
		$(bin)/uv pip compile $$wanted $$override --universal --generate-hashes --no-emit-index-url --no-header --quiet \
			--output-file $$name.txt $(ARGS) || exit; \
	done

tools: setup ## build the programs of a cluster, once (about 25 minutes on 2 cores)
	PYTHON=$(CURDIR)/$(bin)/python deploy/build-tools control-plane helm chart-docs $(if $(root),node) >/dev/null

images: setup ## build the container images without Docker into dist/images, as archives: root on Debian or Ubuntu
	PYTHONPATH=deploy $(bin)/python -m images dist/images

cluster: setup ## start a cluster that runs containers and install Tuneyard in it, or upgrade both (NODES=1)
	$(devcluster) tuneyard --nodes $(or $(NODES),1)

cluster-fake: setup ## start a control plane with fake GPU nodes: no root, no containers (NODES=4)
	$(devcluster) up --nodes $(or $(NODES),4)

cluster-load: setup ## put images of your own into the cluster that runs containers (ARGS=image.tar)
	$(devcluster) load $(ARGS)

cluster-down: setup ## end either of them and remove everything of it
	$(devcluster) down

bench-throughput: setup tools ## trials per second on fake GPUs, beside an ideal driver
	PYTHONPATH=deploy $(bin)/python benchmarks/throughput.py $(ARGS)

bench-laptop: setup ## what the engine costs on this machine, beside its trials
	$(bin)/python benchmarks/laptop.py $(ARGS)

bench-scheduling: setup ## what a scheduling cycle costs, and what its decisions are worth beside FIFO
	$(bin)/python benchmarks/scheduling.py $(ARGS)

bench-placing: setup tools ## places a second on a real API server, and from a GPU falling free to the next pod bound
	PYTHONPATH=deploy $(bin)/python benchmarks/placing.py $(ARGS)

bench-simulation: setup ## simulated schedules with faults per second, all invariants checked
	$(bin)/python benchmarks/simulation.py $(ARGS)

bench-ask: setup peers ## CPU time of an ask by history and strategy, beside Optuna (ARGS: for the benchmark)
	$(bin)/python benchmarks/ask.py $(ARGS)

bench-search: setup peers ## regret of each strategy, beside random search and other optimisers; goes on where it was stopped
	$(bin)/python benchmarks/search.py $(ARGS)

bench-ablation: setup ## what each part of bayesian is worth; goes on where it was stopped
	$(bin)/python benchmarks/ablation.py $(ARGS)

bench-fidelity: setup peers ## epochs and simulated time to reach a score on real learning curves, beside Optuna's pruners
	$(bin)/python benchmarks/fidelity.py $(ARGS)

bench-pareto: setup peers ## hypervolume of fronts of several objectives, beside Optuna's samplers
	$(bin)/python benchmarks/pareto.py $(ARGS)

bench-recommended: setup peers ## what the recommended trial is worth beside the best observed one, where results are noisy and exact
	$(bin)/python benchmarks/recommended.py $(ARGS)

bench-schedules: setup ## held-out loss of a small network by pbt, beside other strategies with as many epochs
	$(bin)/python benchmarks/schedules.py $(ARGS)

peers: setup ## install the optimisers to compare with, and suites of tasks, each into an environment of its own (HEAVY=1: those with PyTorch, 6 GB)
	mkdir -p $(peers); exec 9>$(peers)/.lock; ! command -v flock >/dev/null || flock 9; \
	for requirements in $(wants)/*.txt $(wants)/heavy/*.txt; do \
		name=$$(basename $$requirements .txt); room=$(peers)/$$name; \
		case $$requirements in */heavy/*) test "$(HEAVY)" || test -d $$room || continue;; esac; \
		test -x $$room/bin/python || $(bin)/uv venv --quiet --python $(bin)/python $$room || exit; \
		$(bin)/uv pip sync --quiet --python $$room/bin/python --require-hashes $$requirements 2>$$room.log && rm $$room.log && continue; \
		rm -rf $$room; \
		echo "$$name does not install here, so that benchmarks leave it out: $$room.log says why" >&2; \
	done

bench-install: setup tools images ## memory, size, time to fail over of an installation in real containers: root on Linux
	PYTHONPATH=deploy $(bin)/python benchmarks/install.py $(ARGS)

clean: ## end the cluster, remove .venv and the caches in this folder
	test ! -d .cluster || $(devcluster) down
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
