# make demo: train on real digits, export, serve, classify.   make test: the tests.   make test-fast: those that take no time.
# make test-numbers: the numerical tests, for either kind of kernels.   make test-torch: the layer on PyTorch.   make check: lint and types.
# make docs: the site of docs/, in build/site/index.html.
# make console: the page of the server, from its sources.   make test-console: the page in Chromium.
# make test-ray: servers and batches by Ray.   make test-deploy: the manifests of the server, with Prometheus' own tools.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMETHEUS := $(VENV)/prometheus/usr/bin
SOURCES := keras_prelu training serving tests examples benchmarks
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadgroup --tb=short
NUMERICAL := tests/keras_prelu tests/test_contract.py $(addprefix tests/training/test_, augmentation.py averages.py batch_statistics.py \
	evaluate.py export.py export_formats.py mean.py mixing.py update.py parity.py policy.py preprocessing.py steps.py views.py) \
	--ignore=tests/keras_prelu/test_families.py

.PHONY: demo test test-fast test-numbers test-torch test-keras test-install test-ray test-console console test-deploy test-lowest descriptors docs lint types check clean

demo: $(VENV)/demo-installed
	$(BIN)/python examples/demo.py

test: $(VENV)/dev-installed
	$(PYTEST)

# For the work in between: without the tests that are marked slow.
test-fast: $(VENV)/dev-installed
	$(PYTEST) -m 'not slow' tests keras_prelu

# TensorFlow takes oneDNN's kernels on some CPUs, and its own on others. The numbers must hold with both:
# TF_ENABLE_ONEDNN_OPTS=0 make test-numbers, and with 1.
test-numbers: $(VENV)/dev-installed
	$(PYTEST) $(NUMERICAL)

# The layer, the walk and the gradients on Keras's PyTorch backend, and against PyTorch's own; the example's weights.
test-torch: $(VENV)/peers-installed
	KERAS_BACKEND=torch $(BIN)/python -m pytest tests/peers $(addprefix tests/keras_prelu/test_, \
	functional.py prelu.py places.py tailor.py gradients.py)

# The faults of Keras's own fit that docs/keras_fit.md names: a test here fails when Keras has mended one.
test-keras: $(VENV)/dev-installed
	$(BIN)/python -m pytest tests/keras_fit --tb=short

# The wheel in empty environments, which it fills from PyPI: the demo, and a client without TensorFlow and Keras.
test-install: $(VENV)/dev-installed
	$(BIN)/python -m pytest tests/install --tb=short

# The console's page, from serving/console's sources by the packages that its lock file names.
console:
	npm ci --prefix serving/console --ignore-scripts --no-audit --no-fund
	npm run build --prefix serving/console

# The console, rebuilt to the same bytes and clicked through in Debian's Chromium, which is installed where it is missing.
test-console: $(VENV)/dev-installed console
	git diff --exit-code -- serving/console/page
	command -v chromium || apt-get install --yes --quiet chromium
	$(BIN)/python -m pytest tests/serving/console --tb=short

# The engine of Ray: the tests of both APIs with it, and its own.
test-ray: $(VENV)/dev-installed
	SERVING_TEST_ENGINE=ray $(BIN)/python -m pytest $(addprefix tests/serving/test_serving_, pages.py rest.py rpc.py) --tb=short
	$(BIN)/python -m pytest tests/serving/engines/ray tests/serving/batch/ray --tb=short

# The files of serving/deploy. Debian's prometheus brings promtool and Prometheus itself, unpacked here and not installed.
test-deploy: $(VENV)/dev-installed $(PROMETHEUS)/promtool
	PATH="$(CURDIR)/$(PROMETHEUS):$$PATH" $(BIN)/python -m pytest tests/serving/deploy --tb=short

# The tests with the oldest libraries that setup.cfg allows, in an environment of their own.
test-lowest: $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/lowest
	sed -nE '/^dev =/q; s/^ +([A-Za-z0-9_-]+)>=([0-9.]+).*/\1==\2/p' setup.cfg | sort -u > $(VENV)/lowest/constraints.txt
	$(VENV)/lowest/bin/python -m pip install --quiet --editable '.[dev]' --constraint $(VENV)/lowest/constraints.txt
	$(VENV)/lowest/bin/python -m pytest --numprocesses=2 --dist=loadgroup --tb=short

# The messages that serving/wire/descriptors.pb describes, made anew from the installed packages and our .proto files.
descriptors: $(VENV)/dev-installed
	$(BIN)/python -m tests.serving.make_descriptors

# Strict: a page, a link or a name that is missing is an error. The site needs no network, neither here nor when it is read.
docs: $(VENV)/docs-installed
	PYTHONPATH="$(CURDIR)" NO_MKDOCS_2_WARNING=1 TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/mkdocs build --quiet

check: lint types

lint: $(VENV)/dev-installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/dev-installed
	$(BIN)/mypy

# A stamp is written only when pip has finished, so an interrupted install is taken up again.
$(VENV)/demo-installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/dev-installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/demo-installed

$(VENV)/docs-installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

$(VENV)/peers-installed: $(VENV)/dev-installed
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	@touch $@

$(PROMETHEUS)/promtool:
	mkdir -p $(VENV)/prometheus
	cd $(VENV)/prometheus && apt-get download prometheus && dpkg-deb --extract prometheus_*.deb .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
