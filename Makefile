# `make demo` and `make test` are the two that a newcomer needs; `make help` lists the rest.
# Each makes .venv and installs what it needs; a second run finds that done and starts at once.

PYTHON ?= python3
VENV := .venv
OPTIMUM := .venv-optimum
RAY := .venv-ray
CUDA := .venv-cuda
LOWEST := .venv-lowest
NEWEST := .venv-newest
RELEASE := .venv-release
LOWEST_PYTHON ?= $(shell command -v python3.11 || echo $(PYTHON))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
INSTALL := $(PIP) install --constraint constraints.txt
MODEL := models/sst2-mini
ARTIFACT := artifacts/sst2-mini
EXPORTER := $(wildcard export/*.py export/*/*.py) engine/artifact/__init__.py
KERNELS := setup.py $(wildcard engine/kernels/*.[ch] engine/kernels/*/*.[ch] engine/kernels/*/*/*.[ch])

# A release's files have the date of the last commit in them, so that whoever builds it gets the same bytes.
SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),946684800)
export SOURCE_DATE_EPOCH
# The platforms that `make wheels` builds for, as wheels name them; any is the one without kernels.
PLATFORMS ?= manylinux_2_17_x86_64 win_amd64 any

define REFUSE_OLD_PYTHON
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fusedbert needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)." >&2; \
	  echo "Name another: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
endef

.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo readme test test-all test-wheel test-browser test-optimum test-ray test-cuda test-lowest test-newest test-peers gpu-check lint types wheel wheels release-check clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.demo $(ARTIFACT)/fusedbert.json  ## Export the embedded checkpoint and classify examples/sentences.txt
	@$(BIN)/python examples/demo.py $(ARTIFACT) examples/sentences.txt

# Two files at a time, each with one thread for torch and NumPy: with more they wait for each other, spinning.
test: $(VENV)/.test  ## Run the tests, with transformers and torch as the judge
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile

# Without the Windows wheel, whose first build takes a minute: zig compiles a C runtime for it.
test-wheel: PLATFORMS := manylinux_2_17_x86_64 any
test-wheel: $(VENV)/.test wheels  ## Build the sdist and the wheels, but the Windows one, and use them in fresh environments
	$(BIN)/pytest -q -m environment

test-browser: $(VENV)/.browser  ## Run the pages of explain and bench in headless Chromium, where there is one
	$(BIN)/pytest -q -m browser

test-optimum: $(OPTIMUM)/.made  ## Run the tests of the optimum route, in an environment with an older transformers
	$(OPTIMUM)/bin/pytest -q tests/export/optimum

test-ray: $(RAY)/.made  ## Run batch scoring on a real local Ray, in an environment that has it
	$(RAY)/bin/python -m pytest -q -m ray tests/engine/scoring/test_ray.py

test-cuda: $(CUDA)/.made  ## Run ONNX Runtime's CUDA provider on a fake CUDA device, built by gcc; no GPU is needed
	$(CUDA)/bin/python -m pytest -q -m fake_cuda tests/fake_cuda

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
	$(REFUSE_OLD_PYTHON)
	@$(PYTHON) bench/gpu_check.py --environment .venv-gpu $(if $(WHEELS),--wheels $(WHEELS)) $(if $(SST2),--sst2 $(SST2)) $(GPU_CHECK)

readme: $(VENV)/.test  ## Write the tables of README.md and docs/measurements.md, and docs/time-per-token.svg, from bench/results
	@$(BIN)/python -m fusedbert.bench.report.readme
	@$(BIN)/python -m fusedbert.bench.report.readme --page docs/measurements.md
	@$(BIN)/python -m fusedbert.bench.report.page bench/results/bert-base-growth.json build/growth
	@cp build/growth/time-per-token.svg docs/

lint: $(VENV)/.lint  ## Check style and format, of the Dockerfile too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint examples/containers/Dockerfile

types: $(VENV)/.lint  ## Check types (mypy strict, and pyright)
	$(BIN)/mypy -p fusedbert.engine -p fusedbert.export -p fusedbert.bench
	$(BIN)/mypy examples tests/types
	$(BIN)/basedpyright --pythonpath $(BIN)/python

wheel: $(VENV)/.made  ## Build the wheel for this machine into dist/, with its own compiler
	@rm -rf build dist
	$(PIP) wheel --no-deps --wheel-dir dist .
	@ls dist/*.whl

# zig is a C compiler for every platform, in one wheel. The sdist is packed again, with sorted names and without this machine's
# dates and users; the wheels are built from it, so that nothing else can get in.
wheels: $(RELEASE)/.made  ## Build the wheels and the sdist of a release into dist/, with zig
	@rm -rf build dist *.egg-info
	@mkdir -p build dist
	@umask 022; set -e; export PYTHONDONTWRITEBYTECODE=1; build="$(abspath $(RELEASE))/bin/python -m build --no-isolation"; \
	try() { "$$@" >build/log 2>&1 || { cat build/log; exit 1; }; }; \
	try $$build --sdist --outdir build; \
	name=$$(basename build/*.tar.gz .tar.gz); tar -xf build/$$name.tar.gz -C build --no-same-owner --no-same-permissions; \
	tar --sort=name --mtime=@$$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=pax \
	  --pax-option=delete=atime,delete=ctime -cf - -C build $$name | gzip -9n >dist/$$name.tar.gz; \
	for platform in $(PLATFORMS); do \
	  case $$platform in \
	    manylinux_*_x86_64) glibc=$${platform#manylinux_}; glibc=$${glibc%_x86_64}; target=linux-gnu.$$(echo $$glibc | tr _ .);; \
	    win_amd64) target=windows-gnu;; \
	    *) target=none;; \
	  esac; \
	  CC="$(abspath $(RELEASE))/bin/python -m ziglang cc -target x86_64-$$target" \
	    try $$build --wheel --outdir dist -C--build-option=--plat-name=$$platform build/$$name; \
	  [ -f dist/$$name-py3-none-$$platform.whl ] || { grep 'kernels were not built' build/log || cat build/log; exit 1; }; \
	done
	@ls -l dist | awk 'NR > 1 {print $$9, $$5}'

release-check: $(RELEASE)/.made wheels  ## Build a release, and install and use it in bare roots (Debian by debootstrap, as root)
	$(RELEASE)/bin/pytest -q -m release tests/release

clean:  ## Remove all that make has made, .venv included
	rm -rf $(VENV) $(OPTIMUM) $(RAY) $(CUDA) $(LOWEST) $(NEWEST) $(RELEASE) build dist artifacts *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(ARTIFACT)/fusedbert.json: $(wildcard $(MODEL)/*) $(EXPORTER) | $(VENV)/.demo
	@echo "fusedbert export $(MODEL) $(ARTIFACT)"
	@$(BIN)/fusedbert export $(MODEL) $(ARTIFACT) --force

$(VENV)/.made:
	$(REFUSE_OLD_PYTHON)
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
	@echo "Installing ruff, mypy, pyright and hadolint into $(VENV)"
	@$(INSTALL) --editable ".[cpu,export,lint]"
	@touch $@

$(RELEASE)/.made: pyproject.toml constraints.txt
	@echo "Installing zig and what a release is checked with into $(RELEASE) (400 MB; a quarter of a minute, only this once)"
	@$(PYTHON) -m venv $(RELEASE)
	@$(RELEASE)/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); \
	  print(*p["build-system"]["requires"], *p["project"]["optional-dependencies"]["release"], sep="\n")' > $(RELEASE)/release.txt
	@$(RELEASE)/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --requirement $(RELEASE)/release.txt
	@touch $@
