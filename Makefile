# make demo   a lab host on this machine, deployed and answering
# make test   linters, types and every test, lab included
# make bench  times and remote commands on 1, 3 and more lab hosts
# make bench-ansible  a deploy without changes beside the same checks by Ansible
# make chaos  three servers and a gateway under load, everything goes wrong, and what alerts tell of it
# make setup  what the others need: system packages (apt, as root) and .venv

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
SYSTEM_PACKAGES := age minisign python3-venv openssh-client openssl aria2 curl git gnupg iproute2 nftables mmdebstrap systemd-container docker-compose gcc libc6-dev zstd
# Rules of alerts are tested by it. Of Debian's package only this program is taken: installed, it
# would start a Prometheus that listens on all addresses of this machine.
PROMTOOL := $(BIN)/promtool
# Pages are looked at in it. Debian's smallest browser, 220 MB; any other Chromium will do.
BROWSERS := chromium-headless-shell chromium google-chrome chromium-browser
export PYINFRA_PROGRESS := off
# What Python compiled is kept, whatever the caller says: each run of tests would compile it again.
unexport PYTHONDONTWRITEBYTECODE
# Whole files to each worker, which has a lab of its own. Lab tests wait for hosts as well as work, so
# that there are more labs than cores.
CORES := --numprocesses 2 --dist loadfile
LABS := --numprocesses 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --durations 15

.PHONY: help setup lab-possible system browser venv demo test lint unit unit-all lab-test bench bench-ansible chaos lock reference examples clean

help:
	@sed -n 's/^# make /make /p' Makefile

setup: system browser venv $(PROMTOOL)

# Without root or apt the lab stays away, and says so itself; the rest works.
system:
	@if ! command -v dpkg-query >/dev/null || [ "$$(id -u)" != 0 ]; then \
	  echo "not root on Debian or Ubuntu: no system packages installed"; \
	elif [ "$$(dpkg-query -W -f='$${db:Status-Status}\n' $(SYSTEM_PACKAGES) 2>/dev/null | grep -cx installed)" != $(words $(SYSTEM_PACKAGES)) ]; then \
	  echo "installing $(SYSTEM_PACKAGES)"; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null; \
	fi

browser: system
	@if ! command -v $(BROWSERS) >/dev/null; then \
	  echo "installing chromium-headless-shell"; \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends \
	    chromium-headless-shell fonts-dejavu-core >/dev/null; } || \
	  echo "no Chromium was installed: tests of pages need one in the PATH"; \
	fi

venv: $(VENV)/.complete

$(VENV)/.complete: requirements.lock pyproject.toml | system
	@echo "installing the locked Python environment into $(VENV)"
	@rm -rf $(VENV)
	@python3 -m venv $(VENV)
	@$(BIN)/pip --quiet --disable-pip-version-check install --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $@

$(PROMTOOL): $(VENV)/.complete
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cd "$$folder" && { \
	  { apt-get -qq download prometheus 2>/dev/null || { apt-get -qq update && apt-get -qq download prometheus; }; } && \
	  dpkg-deb --fsys-tarfile prometheus_*.deb | tar --extract --to-stdout ./usr/bin/promtool >promtool && \
	  chmod 755 promtool && mv promtool $(CURDIR)/$@; \
	} || echo "promtool was not installed: tests of alert rules need it in the PATH"

# One line says what is missing and what still works.
lab-possible: setup
	@$(BIN)/corral lab check

demo: setup lab-possible
	@$(BIN)/corral lab up --hosts 1
	$(BIN)/pyinfra inventories/lab.py deploy.py -y
	@$(BIN)/python -m lab.demo

test: setup lint unit-all lab-test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.:files $(BIN)/lint-imports

# While you edit: half a minute. `unit-all` is everything that needs no lab.
unit: setup
	$(BIN)/pytest tests/unit $(CORES) -m "not slow"

unit-all: setup
	$(BIN)/pytest tests/unit $(CORES)
	$(BIN)/pytest tests/operations $(CORES)

lab-test: setup lab-possible
	$(BIN)/pytest tests/lab $(LABS)

bench: setup lab-possible
	$(BIN)/python -m lab.bench

bench-ansible: setup lab-possible
	$(BIN)/python -m lab.bench_ansible

chaos: setup lab-possible
	$(BIN)/python -m lab.chaos --alerts

# After a change in pyproject.toml; needs uv.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --extra dev \
	  --generate-hashes --no-header --no-annotate --output-file requirements.lock pyproject.toml

# After a change of a key in corral/catalog or corral/inventory, or of an engine's flags.
reference: setup
	@$(BIN)/python -m tests.reference

# After a change of the catalog, the example inventory or the lock file that is for everybody: the
# tests read copies, so that what is adapted in a checkout fails none of them.
examples:
	@rm -r tests/data/examples/catalog
	@cp -r catalog corral.lock $(wildcard corral.lock.d) tests/data/examples/
	@cp inventories/prod.py tests/data/examples/inventories/

clean:
	@if [ -x $(BIN)/corral ]; then $(BIN)/corral lab down; fi
	@rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache
