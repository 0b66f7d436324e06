# shellcheck shell=bash
# Runs the steps of scripts/test, times them, counts what passed, and tells it in a table. Sourced, not run.

LOGS=$TARGET/test-logs
rows=() passed=0 failed=0 ignored=0

# A step calls one of these two to say that it did not run: why, and what would make it run.
readonly CANNOT=75 NOT_NEEDED=76
cannot() { printf 'cannot run: %s\n  to enable it: %s\n' "$1" "$2"; exit "$CANNOT"; }
not_needed() { printf 'skipped: %s\n  to enable it: %s\n' "$1" "$2"; exit "$NOT_NEEDED"; }

step_names() { printf '%s\n' "$*"; }

# run_step NAME: calls step_NAME (with _ for -), keeps its output, counts its tests.
run_step() {
    local name=$1 log=$LOGS/$1.log started=$SECONDS status ran broken left_out outcome
    mkdir -p "$LOGS"
    printf '\n== %s\n' "$name"
    # In a subshell that is no condition: only there does `set -e` end the step at its first failing command.
    set +e
    (set -e; "step_${name//-/_}") 2>&1 </dev/null | tee "$log"
    status=${PIPESTATUS[0]}
    set -e
    read -r ran broken left_out < <(count_tests "$log")
    if [[ $status == "$CANNOT" && ${CI:-} == true ]]; then
        echo "under CI this counts as a failure"
        status=1
    fi
    if [[ $status == 0 && $ran == 0 ]] && grep -q '^test result:' "$log"; then
        echo "not one test ran"
        status=1
    fi
    case $status in
    0)
        # A step without a test harness is one check.
        [[ $((ran + broken)) -gt 0 ]] || ran=1
        outcome=passed
        ;;
    "$CANNOT" | "$NOT_NEEDED") outcome="skipped: $(sed -n 's/^\(cannot run\|skipped\): //p' "$log" | tail -n1)" ;;
    *)
        [[ $broken -gt 0 ]] || broken=1
        outcome="FAILED, see $log"
        ;;
    esac
    passed=$((passed + ran)) failed=$((failed + broken)) ignored=$((ignored + left_out))
    rows+=("$(printf '%-14s %5d s %5d %5d   %s' "$name" $((SECONDS - started)) "$ran" "$broken" "$outcome")")
}

# Sums the closing lines of Rust's test harness: passed, failed, ignored.
count_tests() {
    sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored;.*/\1 \2 \3/p' "$1" |
        awk '{ p += $1; f += $2; i += $3 } END { print p + 0, f + 0, i + 0 }'
}

# The table, the line that CI reads, and the exit status.
summary() {
    printf '\n%-14s %7s %5s %5s   %s\n' step time ok bad outcome
    printf '%s\n' "${rows[@]}"
    printf '\nall steps took %d s; a step without tests of its own counts as one; tests marked as ignored: %d\n' "$SECONDS" "$ignored"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [[ $failed == 0 ]]
}
