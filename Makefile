# make demo         a virtual environment, ketwork in it, and the demo study with its page, study.html
# make test         the same environment with what the tests need, and all tests
# make test-random  the property tests, on many examples that are new at each run
# make test-oldest  all tests, in an environment of its own with the oldest versions that pyproject.toml allows
# make docs         the site, into site/: its pages and notebooks are executed, warnings are errors, links are checked
# make release      wheel and sdist, into dist/, and what a release must do: the metadata are right, the wheel runs the demo in a
#                   fresh environment of each of PYTHONS, and the sdist's tests pass there: TESTS=fast, a selection that needs
#                   no more than the wheel does, or TESTS=all. OLDEST=yes repeats it with the oldest versions.
# make lint         style, types and the direction of imports
# make lock         the newest versions that fit together into constraints.txt, the oldest into constraints-oldest.txt

SHELL := bash
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
LOCK   := constraints.txt
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# The lock pins all that is installed, the build backend among it. pyproject.toml itself accepts any versions from the oldest on.
INSTALL := $(PIP) install --quiet --constraint $(LOCK)
# Two processes of one thread each: files stay whole, so that what a file or a session prepares is prepared once a process.
WORKERS ?= 2
TEST    := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

TORCH := 2.13.0
COMPILE := $(VENV)-lock/bin/uv pip compile --quiet --upgrade --all-extras --no-annotate --no-header --python-version 3.11 pyproject.toml -
# What torch's CUDA builds alone need stays out, for a CPU build to be as good.
WITHOUT_CUDA := sed -E '/^(cuda|nvidia|triton)-?/d'

PYTHONS ?= $(PYTHON)
TESTS   ?= fast
OLDEST  ?= no
# What runs without optional packages and real inputs.
FAST := tests/quantum tests/systems tests/records/test_storage.py tests/test_draws.py tests/cli/test_app.py tests/cli/test_doctor.py \
        tests/cli/test_printing.py --pyargs ketwork.quantum

.PHONY: demo test test-random test-oldest docs release lint format lock clean

demo: $(VENV)/.installed
	$(BIN)/ketwork study --out study.html

test: $(VENV)/.dev
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  echo "Tests of the report's page need Chromium and are skipped: install it, with apt-get install chromium."
	$(TEST) $(PYTEST_ARGS)

test-random: $(VENV)/.dev
	$(TEST) --hypothesis-profile random -m hypothesis $(PYTEST_ARGS)

# Old versions warn of what newer ones beside them no longer like: warnings are not errors here.
test-oldest:
	$(MAKE) test VENV=$(VENV)-oldest LOCK=constraints-oldest.txt PYTEST_ARGS="-W default $(PYTEST_ARGS)"

docs: $(VENV)/.docs
	rm -rf build/site site
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --jobs $(WORKERS) \
	  --doctree-dir build/doctrees docs build/site
	$(BIN)/python docs/check_site.py build/site
	mv build/site site

release:
	rm -rf dist build/release
	$(PYTHON) -m venv build/release/tools
	build/release/tools/bin/python -m pip install --quiet --disable-pip-version-check build twine
	build/release/tools/bin/python -m build --outdir dist .
	build/release/tools/bin/twine check --strict dist/*
	tar -xzf dist/ketwork-*.tar.gz -C build/release && mv build/release/ketwork-* build/release/sdist
	for python in $(PYTHONS); do \
	  TESTS="$(TESTS)" FAST="$(FAST)" ./release.sh $$python constraints.txt || exit 1; \
	  [ "$(OLDEST)" != yes ] || TESTS="$(TESTS)" FAST="$(FAST)" ./release.sh $$python constraints-oldest.txt || exit 1; \
	done

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	set -o pipefail; printf 'hatchling\neditables\ntorch==$(TORCH)\n' | $(COMPILE) --universal --fork-strategy fewest | $(WITHOUT_CUDA) > $(VENV)-lock/newest
	set -o pipefail; printf 'hatchling>=1.26\neditables>=0.5\n' | $(COMPILE) --resolution lowest-direct | $(WITHOUT_CUDA) > $(VENV)-lock/oldest
	mv $(VENV)-lock/newest constraints.txt
	mv $(VENV)-lock/oldest constraints-oldest.txt

clean:
	rm -rf $(VENV) $(VENV)-lock $(VENV)-oldest build site

$(VENV)/.installed: pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV)
	@echo "Installing ketwork and its dependencies (torch among them; a few minutes the first time) ..."
	$(INSTALL) hatchling editables
	$(INSTALL) --no-build-isolation --editable '.[report]'
	touch $@

$(VENV)/.dev: $(VENV)/.installed tests/real-inputs.txt
	@echo "Installing what the tests need ..."
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	$(INSTALL) --no-deps --requirement tests/real-inputs.txt
	touch $@

$(VENV)/.docs: $(VENV)/.dev
	@echo "Installing what the site needs ..."
	$(INSTALL) --no-build-isolation --editable '.[docs]'
	touch $@
