# make run     run the hub here, with the sample model converted      make test   all tests
# make install only install                                            make check  the fast part

PYTHON ?= python3
BIN := .venv/bin
export HUB_DATA ?= $(CURDIR)/data

.PHONY: run install test check lint format clean

run: .venv/.installed
	@exec $(BIN)/slmhub up --sample

install: .venv/.installed

.venv/.installed: pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "SLM Hub needs Python 3.11 or newer with venv. Name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into .venv"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python's venv module is missing: install python3-venv."; exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c requirements.txt -e .
	@touch $@

.venv/.tested: .venv/.installed requirements-test.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements-test.txt -e '.[test]'
	@touch $@

lint: .venv/.tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint
	$(BIN)/pytest -m "not slow and not browser and not postgres and not plugin" -n 2 -q

test: lint
	$(BIN)/pytest -n 2 --dist loadfile

format: .venv/.tested
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
