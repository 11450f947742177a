"""`batchfox completion`."""

from __future__ import annotations

import click

from batchfox.cli import say
from batchfox.cli.complete import SHELLS, script


@click.command("completion", short_help="Print what makes a shell complete batchfox's commands.")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> int:
    """Print what makes a shell complete batchfox's commands.

    \b
    bash (4.4 or later), in ~/.bashrc:   eval "$(batchfox completion bash)"
    zsh, in ~/.zshrc behind compinit:    eval "$(batchfox completion zsh)"
    fish, once:  batchfox completion fish > ~/.config/fish/completions/batchfox.fish
    """
    say(script(shell))
    return 0
