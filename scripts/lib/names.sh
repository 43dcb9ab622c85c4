# shellcheck shell=bash
# Purpose: detects misspelt settings in a configuration and in the environment, which would otherwise silently keep the default.
# Inputs:  configs/defaults.env, which has all settings; the variables before and after the configuration was read.
# Outputs: problems for check_config; warnings on the standard error.
# Example: names_before; source "$CONFIG"; names_after; check_names
#
# A configuration may define other variables: names in lower case, names that begin with MY_, and exported variables, which are
# meant for the programs that the pipeline runs.

# known_settings: sets REPLY to the names in configs/defaults.env, separated by spaces.
known_settings() { REPLY=$(sed -nE 's/^([A-Z][A-Z0-9_]*)=.*/\1/p' "$ROOT/configs/defaults.env" | tr '\n' ' '); }

# machine_variables: sets REPLY to the settings that may come from the environment.
machine_variables() {
    REPLY=$(sed -nE 's/^([A-Z][A-Z0-9_]*)=\$\{\1:-.*/\1/p' "$ROOT/configs/defaults.env" | tr '\n' ' ')
    REPLY+="OMP_NUM_THREADS SEEDS LONG"
}

names_before() { NAMES_BEFORE=" $(compgen -A variable | tr '\n' ' ')"; }

# names_after: sets NEW_NAMES to the variables defined since names_before, except those that bash sets itself.
names_after() {
    NEW_NAMES=()
    while read -r REPLY; do
        case $REPLY in NAMES_BEFORE | NEW_NAMES | BASH* | REPLY | MAPFILE | COPROC* | OPT* | PIPESTATUS | _) continue ;; esac
        [[ $NAMES_BEFORE == *" $REPLY "* ]] || NEW_NAMES+=("$REPLY")
    done < <(compgen -A variable)
}

# check_names: reports the names in NEW_NAMES that are not settings, for check_config.
check_names() {
    local name known rule="names of your own are in lower case or begin with MY_"
    ((${#NEW_NAMES[@]} > 0)) || return 0
    known_settings
    known=$REPLY
    for name in "${NEW_NAMES[@]}"; do
        [[ $name != MY_* ]] || continue
        if [[ $name != *[A-Z]* ]]; then # a setting in lower case is probably a mistake
            if [[ $name == *_* && " $known" == *" ${name^^} "* ]]; then
                PROBLEMS+=("$name: unknown setting (did you mean ${name^^}?)")
            fi
            continue
        fi
        # shellcheck disable=SC2086 # a list of words
        suggest "$name" $known
        if [[ -n $REPLY ]]; then
            PROBLEMS+=("$name: unknown setting (did you mean $REPLY?); $rule")
        elif [[ $(declare -p "$name" 2>/dev/null) != declare\ -*x* ]]; then
            PROBLEMS+=("$name: unknown setting; $rule")
        fi
    done
}

# warn_of_environment: warns of environment variables with names similar to settings. They may belong to another program.
warn_of_environment() {
    local name known
    [[ -z ${FC_ENVIRONMENT_CHECKED:-} ]] || return 0
    export FC_ENVIRONMENT_CHECKED=1
    machine_variables
    known=$REPLY
    while read -r name REPLY; do
        printf '%s: warning: %s in the environment is no variable of the pipeline; did you mean %s?\n' "${0##*/}" "$name" "$REPLY" >&2
    done < <(compgen -A export | grep -E '^[A-Za-z_]{6,}$' | nearest "$known" 1)
}

# suggest WORD CANDIDATE...: sets REPLY to the candidate most similar to WORD, or to nothing.
suggest() {
    REPLY=$(nearest "${*:2}" 4 <<<"$1")
    REPLY=${REPLY#* }
}

# nearest CANDIDATES DISTANCE: for each word on the standard input (one a line) that is similar to a candidate but not equal to one,
# prints the word and the nearest candidate. The distance is optimal string alignment, without case and underscores; the maximum is
# DISTANCE, and one edit for every four letters.
nearest() {
    awk -v candidates="$1" -v most="$2" '
        function distance(a, b, i, j, m, n, cost, best) {
            m = length(a); n = length(b)
            for (i = 0; i <= m; i++) d[i, 0] = i
            for (j = 0; j <= n; j++) d[0, j] = j
            for (i = 1; i <= m; i++) for (j = 1; j <= n; j++) {
                cost = substr(a, i, 1) != substr(b, j, 1)
                best = d[i - 1, j - 1] + cost
                if (d[i - 1, j] + 1 < best) best = d[i - 1, j] + 1
                if (d[i, j - 1] + 1 < best) best = d[i, j - 1] + 1
                if (i > 1 && j > 1 && substr(a, i, 1) == substr(b, j - 1, 1) && substr(a, i - 1, 1) == substr(b, j, 1) &&
                    d[i - 2, j - 2] + 1 < best) best = d[i - 2, j - 2] + 1
                d[i, j] = best
            }
            return d[m, n]
        }
        BEGIN {
            count = split(candidates, names, " ")
            for (i = 1; i <= count; i++) { known[names[i]]; plain[i] = toupper(names[i]); gsub("_", "", plain[i]) }
        }
        $0 in known { next }
        {
            word = toupper($0); gsub("_", "", word)
            limit = int(length(word) / 4); if (limit > most) limit = most
            least = limit + 1
            for (i = 1; i <= count; i++) {
                gap = length(plain[i]) - length(word)
                if (gap > limit || -gap > limit) continue
                found = distance(word, plain[i])
                if (found < least) { least = found; name = names[i] }
            }
            if (least <= limit) print $0, name
        }'
}
