# `make demo` and `make test` are the two that a newcomer needs; `make help` lists the rest.
# Each makes .venv and installs what it needs; a second run finds that done and starts at once.

PYTHON ?= python3
VENV := .venv
OPTIMUM := .venv-optimum
RAY := .venv-ray
CUDA := .venv-cuda
LOWEST := .venv-lowest
NEWEST := .venv-newest
LOWEST_PYTHON ?= $(shell command -v python3.11 || echo $(PYTHON))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
INSTALL := $(PIP) install --constraint constraints.txt
MODEL := models/sst2-mini
ARTIFACT := artifacts/sst2-mini
EXPORTER := $(wildcard export/*.py export/*/*.py) engine/artifact/__init__.py
KERNELS := $(wildcard engine/kernels/*.[ch] engine/kernels/*/*.[ch])

.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo readme test test-all test-wheel test-browser test-optimum test-ray test-cuda test-lowest test-newest test-peers gpu-check lint types wheel clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.demo $(ARTIFACT)/fusedbert.json  ## Export the embedded checkpoint and classify examples/sentences.txt
	@$(BIN)/python examples/demo.py $(ARTIFACT) examples/sentences.txt

# Two files at a time, each with one thread for torch and NumPy: with more they wait for each other, spinning.
test: $(VENV)/.test  ## Run the tests, with transformers and torch as the judge
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile

test-wheel: $(VENV)/.test  ## Install the built wheel in fresh environments and use it there
	$(BIN)/pytest -q -m environment

test-browser: $(VENV)/.browser  ## Run the pages of explain and bench in headless Chromium, where there is one
	$(BIN)/pytest -q -m browser

test-optimum: $(OPTIMUM)/.made  ## Run the tests of the optimum route, in an environment with an older transformers
	$(OPTIMUM)/bin/pytest -q tests/export/optimum

test-ray: $(RAY)/.made  ## Run batch scoring on a real local Ray, in an environment that has it
	$(RAY)/bin/python -m pytest -q -m ray tests/engine/scoring/test_ray.py

test-cuda: $(CUDA)/.made  ## Run ONNX Runtime's CUDA provider on a fake CUDA device, built by gcc; no GPU is needed
	$(CUDA)/bin/python -m pytest -q -m fake_cuda tests/fake_cuda/test_fake_cuda.py

test-lowest: $(LOWEST)/.made  ## Export, classify and score with exactly the lower bounds that pyproject.toml declares
	$(LOWEST)/bin/python tests/smoke.py

# What will be released does not stop what is developed here, so a failure is only reported.
test-newest:  ## The same with the newest pre-releases; reports what fails, and passes
	@{ $(PYTHON) -m venv $(NEWEST) && $(NEWEST)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --pre --upgrade \
	  --upgrade-strategy eager --editable ".[cpu,export,data]" && $(NEWEST)/bin/python tests/smoke.py; } \
	  || echo "test-newest: the newest pre-releases do not work, see above; this does not count as a failure"

# Not part of test-all: the environments take 6 GB and many minutes the first time.
test-peers: $(VENV)/.test  ## Build the environments of other engines, and run the tests that compare with them
	$(BIN)/fusedbert bench setup all
	$(BIN)/pytest -q -m peers tests/bench tests/docs

test-all: test test-wheel test-browser test-optimum test-ray test-cuda test-lowest test-newest  ## Run the tests, then those that build environments of their own

# Its own environment, because the GPU wheel of ONNX Runtime excludes the CPU one; it sees this Python's packages.
# GPU_CHECK takes the options of `python -m fusedbert.bench.gpu_check`: --steps, --resume, --list, --dry-run.
gpu-check:  ## On a CUDA machine: install what is missing (WHEELS=FOLDER: from there), measure, write bench/results
	@$(PYTHON) bench/gpu_check.py --environment .venv-gpu $(if $(WHEELS),--wheels $(WHEELS)) $(if $(SST2),--sst2 $(SST2)) $(GPU_CHECK)

readme: $(VENV)/.test  ## Write the tables of README.md and docs/measurements.md, and docs/time-per-token.svg, from bench/results/*.json
	@$(BIN)/python -m fusedbert.bench.report.readme
	@$(BIN)/python -m fusedbert.bench.report.readme --page docs/measurements.md
	@$(BIN)/python -m fusedbert.bench.report.page bench/results/bert-base-growth.json build/growth
	@cp build/growth/time-per-token.svg docs/

lint: $(VENV)/.lint  ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.lint  ## Check types (mypy strict, and pyright)
	$(BIN)/mypy -p fusedbert.engine -p fusedbert.export -p fusedbert.bench
	$(BIN)/mypy examples tests/types
	$(BIN)/basedpyright --pythonpath $(BIN)/python

wheel: $(VENV)/.made  ## Build the wheel into dist/
	@rm -rf build dist
	$(PIP) wheel --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:  ## Remove all that make has made, .venv included
	rm -rf $(VENV) $(OPTIMUM) $(RAY) $(CUDA) $(LOWEST) $(NEWEST) build dist artifacts *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(ARTIFACT)/fusedbert.json: $(wildcard $(MODEL)/*) $(EXPORTER) | $(VENV)/.demo
	@echo "fusedbert export $(MODEL) $(ARTIFACT)"
	@$(BIN)/fusedbert export $(MODEL) $(ARTIFACT) --force

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fusedbert needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)." >&2; \
	  echo "Name another: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml constraints.txt $(KERNELS)
	@echo "Installing the runtime and the exporter into $(VENV) (about 300 MB; a minute or two, only this once)"
	@$(INSTALL) --editable ".[cpu,export]"
	@touch $@

# torch first and by its plain name and version: where a CPU build is configured for pip, that is the line which takes it.
$(VENV)/.test: $(VENV)/.made pyproject.toml constraints.txt $(KERNELS)
	@echo "Installing what the tests need into $(VENV), torch first (several minutes, only this once)"
	@$(PIP) install torch==2.13.0
	@$(INSTALL) --editable ".[test]"
	@touch $@

$(RAY)/.made: pyproject.toml constraints.txt
	@echo "Installing Ray and the runtime into $(RAY) (700 MB; a minute or two, only this once)"
	@$(PYTHON) -m venv $(RAY)
	@$(RAY)/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt \
	  --editable ".[cpu,export,data,ray]" pytest pytest-timeout
	@touch $@

# The GPU wheel without CUDA's libraries: the tests bring libraries of their own.
$(CUDA)/.made: pyproject.toml constraints.txt
	@echo "Installing ONNX Runtime for GPUs and the exporter into $(CUDA) (700 MB; a minute or two, only this once)"
	@$(PYTHON) -m venv $(CUDA)
	@$(CUDA)/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt \
	  --editable ".[export]" onnxruntime-gpu==1.31.1 pytest pytest-timeout
	@touch $@

# The constraints are the bounds themselves, with == for >=. Python 3.11 is the lowest too, and all of them have wheels for it.
$(LOWEST)/.made: pyproject.toml
	@echo "Installing the lowest versions of what the runtime and the exporter need into $(LOWEST) (half a minute, only this once)"
	@$(LOWEST_PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  e = p["optional-dependencies"]; lines = [*p["dependencies"], *e["cpu"], *e["export"], *e["data"]]; \
	  print(*(line.split(",")[0].replace(">=", "==") for line in lines), sep="\n")' > $(LOWEST)/lowest.txt
	@$(LOWEST)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --constraint $(LOWEST)/lowest.txt \
	  --editable ".[cpu,export,data]"
	@touch $@

$(OPTIMUM)/.made: pyproject.toml tests/export/optimum/requirements.txt | $(VENV)/.made
	@echo "Installing optimum, transformers 4.57 and torch into $(OPTIMUM) (1.4 GB; a few minutes, only this once)"
	@$(PYTHON) -m venv $(OPTIMUM)
	@$(OPTIMUM)/bin/python -m pip -qq --disable-pip-version-check install torch==2.13.0
	@$(OPTIMUM)/bin/python -m pip -qq --disable-pip-version-check install --requirement tests/export/optimum/requirements.txt
	@$(OPTIMUM)/bin/python -m pip -qq --disable-pip-version-check install --no-deps --editable .
	@touch $@

# playwright drives a Chromium of the system's; it downloads none.
$(VENV)/.browser: $(VENV)/.test
	@$(INSTALL) playwright
	@touch $@

$(VENV)/.lint: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing ruff, mypy and pyright into $(VENV)"
	@$(INSTALL) --editable ".[cpu,export,lint]"
	@touch $@
