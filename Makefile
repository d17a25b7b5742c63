# Everything that sets itself up. PYTHON chooses the interpreter that .venv is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: help demo test lint bench peers pages clean

help:
	@echo "make demo    train the classic digit network with and without dropout (a minute on 2 cores)"
	@echo "make test    lint, types, import floors, C++ warnings, tests"
	@echo "make bench   every benchmark: ratios against torch, taken side by side"
	@echo "make peers   Monte Carlo dropout beside other packages, in an environment of their own"
	@echo "make pages   write docs/rules from the rules"
	@echo "make clean   remove .venv and what was built"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Made again when what is installed changes; Python files of src are used where they are.
$(INSTALLED): $(BIN)/python pyproject.toml constraints.txt $(wildcard csrc/*)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[torch,study,dev]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/dropkit study

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tests/cpp_warnings.py

# Two processes of one thread each: more threads than cores wait for each other, which takes half as long again.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: $(INSTALLED)
	$(BIN)/python benchmarks

peers:
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt -e .
	PYTHONPATH=benchmarks:tests $(VENV)/peers/bin/python benchmarks/peers/kinds.py
	PYTHONPATH=benchmarks:tests $(VENV)/peers/bin/python benchmarks/peers

pages: $(INSTALLED)
	$(BIN)/python docs/rules/write.py

clean:
	rm -rf $(VENV) build src/*.egg-info src/dropkit/kernels/*.so
