"""`make bench` runs all of them, `make bench ARGS="NAME --json"` one. The last line is one JSON object."""

import argparse
import asyncio

from benchmarks import chat, coder_overhead, demo, gateway, orchestration, redaction, swap, trials
from benchmarks.table import as_json, machine, show

MODULES = (demo, orchestration, coder_overhead, gateway, chat, redaction, swap, trials)
KNOWN = {module.NAME: module.measure for module in MODULES}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(KNOWN)}")
    parser.add_argument("--json", action="store_true", help="no table, only the JSON object")
    options = parser.parse_args()
    if unknown := set(options.names) - KNOWN.keys():
        parser.error(f"no benchmark is named {min(unknown)}; there is {', '.join(KNOWN)}")
    found = {}
    if not options.json:
        print(machine())
    for name in options.names or KNOWN:
        found[name] = asyncio.run(KNOWN[name]())
        if not options.json:
            show(name, found[name])
    print(as_json(found))


if __name__ == "__main__":
    main()
