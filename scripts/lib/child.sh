# shellcheck shell=bash disable=SC2154 # whoever sources this sets work, a folder
# Programs that run beside a script: started, listened to, ended by their own process id. Sourced, not run.
#
# What a child says on stderr is shown with its name in front. Nothing here waits by the clock.

declare -A child_pid=() child_shower=()

# start_child NAME COMMAND...: starts it with its stderr in a pipe that await_line reads.
start_child() {
    local name=$1 pipe=$work/$1.stderr
    shift
    say "starting: ${1##*/} ${*:2}"
    mkfifo "$pipe"
    "$@" 2>"$pipe" </dev/null &
    child_pid[$name]=$!
    exec {child_stderr}<"$pipe"
    latest_child=$name
}

# await_line BEGINNING: shows what the latest child says until a line begins so, leaves that line in `line`, and shows
# the rest from then on in the background. The end of the pipe is the end of the child.
await_line() {
    while IFS= read -r line <&"$child_stderr"; do
        show_line "$latest_child" "$line"
        [[ $line != "$1"* ]] || break
    done
    if [[ $line != "$1"* ]]; then
        wait "${child_pid[$latest_child]}" || say "$latest_child ended with $?"
        unset "child_pid[$latest_child]"
        die "$latest_child ended before it said '$1...'"
    fi
    while IFS= read -r said; do show_line "$latest_child" "$said"; done <&"$child_stderr" &
    child_shower[$latest_child]=$!
    exec {child_stderr}<&-
}

show_line() { printf '%-6s| %s\n' "$1" "$2"; }

signal_children() { kill -s "$1" "${child_pid[@]}" || say "one of them had ended already"; }

# Ends all at a signal to us, while await_children waits.
end_at_interrupt() { trap 'interrupted=1; signal_children TERM' INT TERM; }

# Waits until all have ended and all they said is shown; says who did not end with 0.
await_children() {
    local name status bad=0
    for name in "${!child_pid[@]}"; do
        # A signal that we trap ends a `wait` early, and then its status is not the child's.
        while :; do
            interrupted='' status=0
            wait "${child_pid[$name]}" || status=$?
            [[ -n $interrupted ]] || break
        done
        wait "${child_shower[$name]}" || true
        [[ $status == 0 ]] || { say "$name ended with $status"; bad=1; }
        unset "child_pid[$name]"
    done
    return "$bad"
}

# For a trap: nothing that we started outlives us.
end_children() {
    [[ ${#child_pid[@]} -eq 0 ]] || kill -s TERM "${child_pid[@]}" 2>/dev/null || true
    local name
    for name in "${!child_pid[@]}"; do wait "${child_pid[$name]}" || true; done
}
