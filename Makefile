# Everything that sets itself up. PYTHON chooses the interpreter that .venv is made from; TORCH, another release of torch
# than that of constraints.txt, which gets an environment of its own.
PYTHON ?= python3
TORCH ?=
VENV := .venv$(if $(TORCH),-$(TORCH))
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
CONSTRAINTS := $(if $(TORCH),$(VENV)/constraints.txt,constraints.txt)
# Here a compiler that fails is an error.
export DROPKIT_REQUIRE_EXTENSION := 1

.PHONY: help install demo quick oldest test long lint bench peers reproduce pages docs clean

help:
	@echo "make install   make .venv, and install dropkit with all that the tests need"
	@echo "make demo      train digit networks with and without dropout, and say which to use (a minute and a half on 2 cores)"
	@echo "make quick     some tests of each kind, in less than half a minute"
	@echo "make test      everything: formatting, types, import layers, C++ warnings, all tests"
	@echo "make test TORCH=2.14.1   the tests alone, with another release of torch"
	@echo "make oldest    tests with the oldest dependencies that are allowed"
	@echo "make long      exhaustive forms of some tests: files damaged at every bit, studies killed 20 times"
	@echo "make bench     all benchmarks, or those of NAMES=\"forward small\""
	@echo "make peers     Monte Carlo dropout beside other packages, in an environment of their own"
	@echo "make reproduce train networks for published results about dropout, and write docs/reproduction.md (12 minutes)"
	@echo "make pages     write docs/rules from the rules, docs/layers from the layers, docs/findings.md from its data"
	@echo "make docs      build the documentation site in build/site; a warning is an error"
	@echo "make clean     remove .venv and everything that was built"

install: $(INSTALLED)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Made again when what is installed changes; Python files of src are used where they are.
$(INSTALLED): $(BIN)/python pyproject.toml setup.py $(CONSTRAINTS) $(wildcard csrc/*)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e ".[torch,study,dev]"
	@touch $@

# What belongs to a release of torch is found by pip.
$(VENV)/constraints.txt: constraints.txt $(BIN)/python
	sed '/^\(torch\|torchvision\|triton\)==/d' constraints.txt > $@
	echo torch==$(TORCH) >> $@

# Without the packages of the tests, unless they are there.
DEMO := $(if $(wildcard $(INSTALLED)),$(VENV),$(VENV)-demo)
demo: $(DEMO)/installed
	$(DEMO)/bin/dropkit study

$(VENV)-demo/installed: pyproject.toml setup.py $(CONSTRAINTS) $(wildcard csrc/*)
	$(PYTHON) -m venv $(VENV)-demo
	$(VENV)-demo/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e ".[torch,study]"
	@touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/helpers/cpp_warnings.py

# Two processes of one thread each: more threads than cores wait for each other, which takes half as long again.
test: $(if $(TORCH),$(INSTALLED),lint)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not long"

long: $(INSTALLED)
	DROPKIT_KILLS=20 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m long
	DROPKIT_KILLS=20 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/studies -k kill

# One or two files of each kind: masks by known answers and against the reference, the laws of every layer, gradients, the
# rules on their examples, the linter, audits, Monte Carlo predictions, the commands. What is marked slow or compiles is
# left out: importing the compiler alone takes seconds. Every wheel is tested by them, too.
quick: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 @tests/quick.txt

# The same tests, and those of what the extras are for, with the oldest release of each dependency that pyproject.toml
# allows, in an environment of its own. Old packages use what newer ones have deprecated. Of triton, each torch needs one
# release, which pip finds.
OLDEST := .venv-oldest
oldest:
	$(PYTHON) -m venv $(OLDEST)
	sed '/^gpu = /d; /^dev = /,$$d' pyproject.toml | grep -o '[a-z][a-z0-9-]*>=[0-9.]*' | sed 's/>=/==/' > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(OLDEST)/constraints.txt \
		-e ".[torch,grpc,mc,watch,editor]" hypothesis pytest pytest-xdist sybil
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 -W default::DeprecationWarning @tests/quick.txt tests/mc tests/report

# benchmarks/auditing.py uses tests/helpers.
bench: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python benchmarks $(NAMES)

peers:
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt -e .
	PYTHONPATH=benchmarks:tests $(VENV)/peers/bin/python benchmarks/peers/kinds.py
	PYTHONPATH=benchmarks:tests $(VENV)/peers/bin/python benchmarks/peers

# After Ctrl-C, the next run goes on. `make clean` removes finished trials, too.
reproduce: $(INSTALLED)
	PYTHONPATH=experiments OMP_NUM_THREADS=1 $(BIN)/python -m reproduce

pages: $(INSTALLED)
	$(BIN)/python docs/rules/write.py
	$(BIN)/python docs/write_layers.py
	$(BIN)/python docs/write_findings.py
	$(BIN)/python docs/write_measures.py

# Its tutorials run as notebooks.
docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	$(BIN)/python -m pytest -m "" tests/docs/test_site.py

$(VENV)/docs-installed: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-demo $(OLDEST) build src/*.egg-info src/dropkit/kernels/*.so
