#!/bin/sh
# The agent's own tests: one good at a time, as its author thought people would ask.
[ "$(echo apple | sh "$(dirname "$0")/../agent.sh" ask)" = "apple costs 2." ]
