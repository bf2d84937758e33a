#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Fails when clang-format would change a .c or .h file that git tracks. Run from the root.
set -eu
command -v clang-format >/dev/null || {
    echo "skipped: clang-format is not installed"
    exit 77
}
git rev-parse --is-inside-work-tree >/dev/null 2>&1 || {
    echo "skipped: this is not a git checkout, so that there is no list of files"
    exit 77
}
list=$(mktemp)
trap 'rm -f "$list"' EXIT
git ls-files -- '*.c' '*.h' | while IFS= read -r file; do
    [ ! -f "$file" ] || printf '%s\n' "$file"
done >"$list"
xargs -r clang-format --dry-run --Werror --style=file <"$list"
echo "formatted: $(wc -l <"$list") files"
