#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Fails when a black-box test file or a fuzz target is not registered with ctest, or a unit test
# file is not named in its CMakeLists.txt: a test that nobody runs looks just like one that passes.
set -eu
status=0
for file in tests/blackbox/test_*.py; do
    name=${file##*/test_}
    name=${name%.py}
    grep -qE "^blackbox_test\($name( |\))" tests/blackbox/tests.cmake || {
        echo "$file is not registered: add blackbox_test($name) to tests/blackbox/tests.cmake" >&2
        status=1
    }
done
for file in tests/unit/*/test_*.c; do
    [ -f "$file" ] || continue
    folder=${file%/*}
    base=${file##*/}
    name=${base#test_}
    grep -qE "(^|[^[:alnum:]_])(test_)?${name%.c}(\.c)?([^[:alnum:]_]|$)" "$folder/CMakeLists.txt" || {
        echo "$file is not named in $folder/CMakeLists.txt" >&2
        status=1
    }
done
for file in tests/fuzz/fuzz_*.c; do
    name=${file##*/fuzz_}
    name=${name%.c}
    grep -qE "^fuzz_target\($name( |\))" tests/fuzz/CMakeLists.txt || {
        echo "$file is not registered: add fuzz_target($name …) to tests/fuzz/CMakeLists.txt" >&2
        status=1
    }
done
exit $status
