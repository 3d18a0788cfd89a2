# make demo   install into .venv and run the whole job on the embedded corpus
# make test   install into .venv, lint, type-check and run the tests
# make bench  ratios of latencies on the demo's bundle, beside the stored ones; UPDATE=1 stores today's
# make fuzz   what reads files, fed by a fuzzer for FUZZ_SECONDS each (300); what it finds is kept in .fuzz
# make kills  kill -9 at every system call of every kind of edit (Linux)
# make dist   build the source distribution and the wheel into dist/, and check them
# make clean  remove what these made

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test lint bench fuzz kills dist clean

demo: $(STAMP)
	$(BIN)/reaugkd demo

test: lint
	$(BIN)/pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# mypy cannot follow an editable install's import hooks: it gets the package's name as a link
	@mkdir -p $(VENV)/types && ln -sfn ../.. $(VENV)/types/reaugkd
	@ln -sfn ../../tests/typing/test_api.py $(VENV)/types/public_api.py
	cd $(VENV)/types && ../bin/mypy --config-file ../../pyproject.toml \
		-m reaugkd -m reaugkd.cli -m reaugkd.errors -m public_api -p reaugkd.commands -p reaugkd.kb -p reaugkd.runtime -p reaugkd.export

bench: $(STAMP) demo/float32/manifest.json
	$(BIN)/python benchmarks/regression.py demo $(if $(UPDATE),--update)

FUZZ_SECONDS ?= 300
FUZZ_TARGETS := $(filter-out __main__ common texts,$(basename $(notdir $(wildcard tests/fuzz/*.py))))

fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	cd tests && for target in $(FUZZ_TARGETS); do \
		FUZZ_SECONDS=$(FUZZ_SECONDS) ../$(BIN)/python -m fuzz $$target || exit 1; \
	done

kills: $(STAMP)
	cd tests && ../$(BIN)/python -m support.kills

dist: $(STAMP)
	rm -rf dist reaugkd.egg-info
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

demo/bundle/manifest.json: | $(STAMP)
	$(BIN)/reaugkd demo

demo/float32/manifest.json: demo/bundle/manifest.json
	rm -rf demo/float32
	$(BIN)/reaugkd export demo/run --out demo/float32 --quantization none

$(STAMP): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist reaugkd.egg-info
