#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds preset dev (ASan, UBSan, warnings are errors) and runs the tests through ctest.
#
#   sh tests/run.sh             all tests
#   sh tests/run.sh NAME…       those whose ctest name contains one of the NAMEs (a NAME is a
#                               regular expression): unit.config, blackbox.reload, style …
#
# Installs the packages of tests/packages.txt first when one is missing; that needs root or sudo,
# and it is the only step that needs a network. Environment:
#
#   NARWHAL_TEST_JOBS        tests that run at the same time; the number of CPUs
#   NARWHAL_RELEASE_BINARY   measure memory on this binary instead of the sanitized one
#
# The exit status is that of ctest; the last line is 'N passed, N failed, N skipped'.
set -eu
cd "$(dirname "$0")/.."

sh etc/install-packages.sh -f etc/packages.txt -f tests/packages.txt

jobs=${NARWHAL_TEST_JOBS:-$(nproc)}
cmake --preset dev && cmake --build build/dev -j "$(nproc)" || {
    echo "tests/run.sh: preset dev does not build, so that no test can run" >&2
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}

select=
for name in "$@"; do
    select="${select:+$select|}$name"
done
report=$PWD/build/dev/tests.xml
rm -f "$report"
status=0
ctest --test-dir build/dev --output-on-failure --no-tests=error -j "$jobs" \
      --output-junit "$report" ${select:+-R "$select"} || status=$?

# The counts stand in the opening element of ctest's JUnit report:
# <testsuite name="…" tests="40" failures="0" disabled="0" skipped="1" …>
count() {
    sed -n "/<testsuite /,/>/s/.*[[:space:]]$1=\"\([0-9]*\)\".*/\1/p" "$report" | head -n 1
}
if [ -f "$report" ]; then
    all=$(count tests) failed=$(count failures) skipped=$(count skipped) disabled=$(count disabled)
    all=${all:-0} failed=${failed:-0} skipped=$((${skipped:-0} + ${disabled:-0}))
    echo "$((all - failed - skipped)) passed, $failed failed, $skipped skipped"
else
    echo "0 passed, 1 failed, 0 skipped"
    [ "$status" -ne 0 ] || status=1
fi
exit "$status"
