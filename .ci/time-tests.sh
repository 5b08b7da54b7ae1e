#!/usr/bin/env bash
# Cargo runs each test program through this script. Its output passes through unchanged; how long each test took is added
# to the file TEST_TIMES, as seconds, program and test.
#
# libtest measures tests only with an unstable option. RUSTC_BOOTSTRAP allows it to the program alone: given to cargo, it
# would have everything compiled anew.
set -euo pipefail

program=$1
shift
# Documentation tests are other programs.
case $program in */deps/*) ;; *) exec "$program" "$@" ;; esac

name=$(basename "$program")
colour=()
if [ -t 1 ]; then colour=(--color=always); fi

RUSTC_BOOTSTRAP=1 "$program" "$@" "${colour[@]}" -Z unstable-options --report-time | awk -v name="${name%-*}" '
  match($0, / <[0-9.]+s>$/) {
    split($0, word, " ")
    print substr($0, RSTART + 2, RLENGTH - 4), name, word[2] >>ENVIRON["TEST_TIMES"]
    $0 = substr($0, 1, RSTART - 1)
  }
  { print; fflush() }
'
