PYTHON ?= python3
PORT ?= 8000
export PORT

python = .venv/bin/python
flask = $(python) -m flask
parallel = $(python) -m pytest --numprocesses auto --dist worksteal
pip_install = $(python) -m pip install --quiet --disable-pip-version-check --editable

.PHONY: help run test test-quick lint openapi sql chaos bench bench-scale bench-compare lock clean
.DELETE_ON_ERROR:

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

run: .venv/runtime instance/development.key instance/webhooks.key ## Serve a demo on 127.0.0.1:8000 (or PORT=...)
	@env | grep -Eq '^PROGRESS_JWT_(SECRET_KEY|PUBLIC_KEY|JWKS_URL)(_FILE)?=.' || \
		export PROGRESS_JWT_SECRET_KEY_FILE=instance/development.key; \
	env | grep -q '^PROGRESS_WEBHOOK_' || \
		export PROGRESS_WEBHOOK_HOSTS=hooks.example.org PROGRESS_WEBHOOK_KEY_FILE=instance/webhooks.key; \
	exec $(python) -m progress_service.demo

test: .venv/dev ## Run the tests on SQLite and PostgreSQL (ARGS="-k word" for some)
	@$(parallel) $(ARGS)

test-quick: .venv/dev ## Run them in a minute: without PostgreSQL, and without random or slow ones
	@$(parallel) -m "not postgresql and not slow" $(ARGS)

lint: .venv/dev ## Check style, types and the direction of imports
	@$(python) -m ruff check
	@$(python) -m ruff format --check
	@$(python) -m mypy
	@.venv/bin/lint-imports --no-logo

openapi: .venv/runtime instance/development.key ## Renew docs/openapi.json, the description of the API
	@mkdir -p docs
	@PROGRESS_JWT_SECRET_KEY=$$(cat instance/development.key) $(flask) openapi > docs/openapi.json

sql: .venv/dev ## Renew docs/sql/, the statements that the service sends
	@$(python) -m tests.sql >/dev/null

chaos: .venv/dev ## Kill workers and the database under load, and count afterwards (ARGS="--seconds 60")
	@$(python) -m tests.chaos $(ARGS)

bench: .venv/dev ## Measure how fast the service is (see bench/README.md; ARGS="--only post")
	@$(python) -m bench.speed $(ARGS)

bench-scale: .venv/dev ## Measure with a thousand and a million learners
	@$(python) -m bench.scale $(ARGS)

bench-compare: .venv/dev ## Compare two runs (BASE=a.json NEW=b.json)
	@$(python) -m bench.report $(BASE) $(NEW)

lock: .venv/dev ## Lock the newest dependencies within their ranges in requirements.txt
	@$(python) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" --output-file requirements.txt setup.cfg

clean: ## Remove what these targets made, but for the key and the data in instance/
	rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info build
	find . -name __pycache__ -prune -exec rm -rf {} +

instance/development.key:
	@mkdir -p instance
	@umask 077 && $(PYTHON) -c 'import secrets; print(secrets.token_hex(32))' > $@

instance/webhooks.key:
	@mkdir -p instance
	@umask 077 && $(PYTHON) -c 'import base64, secrets; print(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())' > $@

.venv/bin/pip:
	@$(PYTHON) -m venv .venv

.venv/runtime: setup.cfg pyproject.toml | .venv/bin/pip
	@echo "Installing into .venv ..."
	@$(pip_install) .
	@touch $@

.venv/dev: setup.cfg pyproject.toml | .venv/bin/pip
	@echo "Installing into .venv, with what tests and checks need ..."
	@$(pip_install) '.[dev]'
	@touch .venv/runtime $@
