# Everything a developer types. `make test` on a fresh clone needs Python 3.11, git and make, and sets the rest up itself.

RUN := .venv/bin/python -m
PYTEST_ARGS ?=
ARGS ?=

.PHONY: help venv demo run bench check format test sweep docs pictures lock clean

help:
	@echo "make demo    the whole story on this machine (ARGS=... is passed on, such as --open)"
	@echo "make run     a Moss to try by hand: the room, the example agent, one operator and one user"
	@echo "make bench   every benchmark, or one (ARGS=\"NAME --json\")"
	@echo "make test    the tests, without the long fault sweeps (PYTEST_ARGS=... is passed on)"
	@echo "make sweep   the long fault sweeps"
	@echo "make check   ruff, mypy --strict, import-linter"
	@echo "make format  let ruff put the files in order"
	@echo "make docs    write docs/configuration.md from the settings, docs/cards.md from the cards"
	@echo "make pictures  draw docs/demo.svg and docs/pictures from stories that run for it"
	@echo "make lock    write both lock files anew (needs uv)"
	@echo "make clean   remove .venv and caches"

venv:
	@.ci/venv

demo: venv
	@.venv/bin/moss demo $(ARGS)

run: venv
	@.venv/bin/moss run $(ARGS)

bench: venv
	@$(RUN) benchmarks $(ARGS)

check: venv
	@$(RUN) ruff check .
	@$(RUN) ruff format --check --quiet .
	@$(RUN) mypy
	@.venv/bin/lint-imports --no-logo

format: venv
	@$(RUN) ruff check --fix --quiet .
	@$(RUN) ruff format --quiet .

# Where compiled files may not be kept, each of many processes would compile everything anew.
test: venv
	@env -u PYTHONDONTWRITEBYTECODE $(RUN) pytest -q -rfE -n 3 --dist worksteal -m "not sweep" $(PYTEST_ARGS)

sweep: venv
	@$(RUN) pytest -q -s -m sweep -o faulthandler_timeout=3600 $(PYTEST_ARGS)

docs: venv
	@$(RUN) bot.configuration_doc docs/configuration.md
	@$(RUN) tests.support.previews docs/cards.md

pictures: venv
	@.venv/bin/moss demo --headless --host process --picture docs/demo.svg
	@MOSS_TEST_PICTURES=docs/pictures $(RUN) pytest -q tests/test_room_story.py

lock:
	@.ci/lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
