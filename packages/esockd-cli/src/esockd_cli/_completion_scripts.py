"""What a shell has to be told so that it completes the words of `esockd`."""

from __future__ import annotations

from typing import Final

BASH: Final = r"""# esockd completion bash > /etc/bash_completion.d/esockd
_esockd() {
    local line=${COMP_LINE:0:COMP_POINT} words word found IFS=$' \t\n'
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    word=${words[${#words[@]}-1]}
    # Readline completes what follows the last of COMP_WORDBREAKS, such as the ":" of an address.
    local kept=${word%"${word##*[$COMP_WORDBREAKS]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r found _; do
        COMPREPLY+=("${found#"$kept"}")
    done < <(esockd __complete "${words[@]:1}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F _esockd esockd
"""

ZSH: Final = r"""#compdef esockd
# esockd completion zsh > "${fpath[1]}/_esockd"
_esockd() {
    local -a values shown settings
    local value text
    while IFS=$'\t' read -r value text; do
        if [[ $value == *= ]]; then
            settings+=("$value")
        else
            values+=("$value")
            shown+=("$value${text:+  -- $text}")
        fi
    done < <(esockd __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)
    (( $#settings )) && compadd -S '' -a settings
    (( $#values )) && compadd -l -d shown -a values
    (( $#settings + $#values )) || _files
}
if [[ ${funcstack[1]} == _esockd ]]; then _esockd "$@"; else compdef _esockd esockd; fi
"""

FISH: Final = r"""# esockd completion fish > ~/.config/fish/completions/esockd.fish
function __esockd_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (esockd __complete $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c esockd -f -a '(__esockd_complete)'
"""

SCRIPTS: Final = {"bash": BASH, "zsh": ZSH, "fish": FISH}
