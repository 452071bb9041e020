"""bash, zsh and fish: the script that each is given, and how what is offered is told to it.

The script gives the program the line up to the cursor ($COMP_LINE), of which bash has the command at its end only, and takes back
a line for each word that is offered:

    bash    plain,TEXT, where a space follows, or open,TEXT, where the word goes on. TEXT takes the place of what bash takes for
            the word, and is quoted for where it stands
    zsh     three lines: plain, open, or raw for what is quoted already; the word; what it is, or _
    fish    the word, a TAB, what it is

No shell evaluates what comes back; and a name with a character that does not print is never offered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from click.shell_completion import CompletionItem, ShellComplete

from clickpipe.cli.completing.typed import Typed, typed

Item = CompletionItem[str]
OPEN, CALL = "open", "call"  # kinds of items: more of the word follows; and it is a call, which has to stand in quotes
VARIABLE = "_CLICKPIPE_COMPLETE"
_BREAKS = " \t\n\"'><=;|&(:"  # of bash, where it does not say others
_HARMLESS = re.compile(r"[\w./,:=@%+-]", re.UNICODE)

_BASH = """\
# Shell completion of clickpipe. In ~/.bashrc:
#     eval "$(clickpipe completion bash)"
# or once, for all shells to come:
#     mkdir -p ~/.local/share/bash-completion/completions
#     clickpipe completion bash > ~/.local/share/bash-completion/completions/clickpipe
%(complete_func)s() {
    local line is_open=
    COMPREPLY=()
    while IFS= read -r line; do
        [[ $line == open,* ]] && is_open=1
        COMPREPLY+=("${line#*,}")
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete command %(prog_name)s 2>/dev/null)
    [[ -z $is_open ]] || compopt -o nospace 2>/dev/null
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null || complete -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s
# Shell completion of clickpipe. In ~/.zshrc, behind compinit:
#     eval "$(clickpipe completion zsh)"
# or once, for all shells to come, in a folder of your $fpath:
#     clickpipe completion zsh > ~/.zfunc/_clickpipe
%(complete_func)s() {
    local kind word about
    local -a all shown offered
    while IFS= read -r kind && IFS= read -r word && IFS= read -r about; do
        shown=("$word")
        [[ $about == _ ]] || shown=("$word  -- $about")
        offered=("$word")
        case $kind in
            (open) compadd -U -V %(prog_name)s -l -S '' -d shown -a offered ;;
            (raw) compadd -U -Q -V %(prog_name)s -l -S '' -d shown -a offered ;;
            (*) compadd -U -V %(prog_name)s -l -d shown -a offered ;;
        esac
        all+=("$word")
    done < <(COMP_LINE="$LBUFFER" COMP_WORD="${words[CURRENT]%%$SUFFIX}" \\
        %(complete_var)s=zsh_complete command %(prog_name)s 2>/dev/null)
    (( $#all ))
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
# Shell completion of clickpipe. In ~/.config/fish/config.fish:
#     clickpipe completion fish | source
# or once, for all shells to come:
#     clickpipe completion fish > ~/.config/fish/completions/clickpipe.fish
function %(complete_func)s
    set -lx COMP_LINE (commandline -c | string collect)
    %(complete_var)s=fish_complete command %(prog_name)s 2>/dev/null
end
complete --command %(prog_name)s --no-files --keep-order --arguments '(%(complete_func)s)'
"""


class Shell(ShellComplete):
    """Of each, `format_completion` tells an item, whose value is a whole word, to the shell."""

    line: Typed

    def get_completion_args(self) -> tuple[list[str], str]:
        self.line = typed(self.text())
        return self.line.words, self.line.value

    def text(self) -> str:
        """What was typed, up to the cursor."""
        return os.environ.get("COMP_LINE", "")

    def complete(self) -> str:
        args, incomplete = self.get_completion_args()
        self.ctx_args["obj"] = self.line  # for those who want to know what else stands on the line
        begin = self._begin(args, incomplete)
        items = self.get_completions(args, incomplete[len(begin) :])
        if not items and not incomplete and not args[-1].startswith("-"):  # no argument is missing: what else there is
            items = self.get_completions(args, "--")
        told = [_whole(begin, item) for item in items if item.value.isprintable()]
        return "".join(f"{self.format_completion(item)}\n" for item in told)

    def _begin(self, args: list[str], incomplete: str) -> str:
        """Of --name=value the name, which becomes a word before."""
        name, equals, _ = incomplete.partition("=")
        if not equals or not name.startswith("--"):
            return ""
        args.append(name)
        return name + equals


def _whole(begin: str, item: Item) -> Item:
    help_ = " ".join((item.help or "").split())
    return CompletionItem(begin + item.value, item.type, help_ if help_.isprintable() else None)


class Bash(Shell):
    """It offers words as they are typed, so what is special to it is escaped here."""

    name = "bash"
    source_template = _BASH

    def source(self) -> str:  # the original starts a bash, to look at its version
        return self.source_template % self.source_vars()

    def format_completion(self, item: Item) -> str:
        done, quote = _taken(self.line.raw, os.environ.get("COMP_WORDBREAKS") or _BREAKS)
        rest = item.value[len(done) :]
        kind = "plain" if item.type not in (OPEN, CALL) else "open"
        if item.type == CALL and not quote:
            name, equals, call = rest.rpartition("=")
            return f"{kind},{_escaped(name + equals)}'{call}"
        home = "~/" if not done and not quote and self.line.raw.startswith("~/") and rest.startswith("~/") else ""
        return f"{kind},{home}{_quoted(rest[len(home) :], quote)}"


class Zsh(Shell):
    name = "zsh"
    source_template = _ZSH

    def text(self) -> str:
        """It takes away quotes that begin in the middle of a word, and has the word as it was."""
        line, word = super().text(), os.environ.get("COMP_WORD", "")
        bare = typed(word).value
        return line.removesuffix(bare) + word if bare and line.endswith(bare) else line

    def format_completion(self, item: Item) -> str:
        kind = OPEN if item.type in (OPEN, CALL) else "plain"
        word = item.value
        if item.type == CALL and not self.line.raw.startswith(("'", '"')):
            name, equals, call = word.rpartition("=")
            kind, word = "raw", f"{_escaped(name + equals)}'{call}"
        return f"{kind}\n{word}\n{item.help or '_'}"


class Fish(Shell):
    name = "fish"
    source_template = _FISH

    def format_completion(self, item: Item) -> str:
        return f"{item.value}\t{item.help}" if item.help else item.value


SHELLS: dict[str, type[Shell]] = {shell.name: shell for shell in (Bash, Zsh, Fish)}


def _taken(raw: str, breaks: str) -> tuple[str, str]:
    """What bash leaves alone of the word: as much as it says, up to the last break or open quote; and that quote."""
    value, done, quote, at = list[str](), 0, "", 0
    while at < len(raw):
        one = raw[at]
        if quote and one == quote:
            quote = ""
        elif not quote and one in "'\"":
            quote, done = one, len(value)
        elif one == "\\" and quote != "'":
            at += 1
            value.append(raw[at : at + 1])
        else:
            value.append(one)
            done = len(value) if not quote and one in breaks else done
        at += 1
    return "".join(value)[:done], quote


def _quoted(text: str, quote: str) -> str:
    """For where it stands: within this quote, or none."""
    if quote == "'":
        return text.replace("'", "'\\''")
    if quote == '"':
        return re.sub(r'([$`"\\])', r"\\\1", text)
    return _escaped(text)


def _escaped(text: str) -> str:
    return "".join(one if _HARMLESS.match(one) else f"\\{one}" for one in text)


def names() -> Sequence[str]:
    return list(SHELLS)
