"""`prior-fast completion`: the words that make a shell complete commands, options and settings."""

import argparse

from prior_fast.cli.parser import examples

SHELLS = {
    "bash": ("~/.bashrc", 'eval "$(prior-fast completion bash)"'),
    "zsh": ("~/.zshrc", 'eval "$(prior-fast completion zsh)"'),
    "fish": ("~/.config/fish/config.fish", "prior-fast completion fish | source"),
}


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `completion`."""
    parser = subparsers.add_parser(
        "completion",
        help="let the shell complete commands, options, settings and their values",
        description="Print the code by which a shell completes commands, options, their choices, files, and settings "
        "(key=value) with their choices. Without SHELL, say how to use it.",
        epilog="To have it in every shell, add the line to the file in brackets.\n\n"
        + "\n".join(f"  {name:<6}{line}  ({file})" for name, (file, line) in SHELLS.items())
        + "\n\n"
        + examples("prior-fast completion bash"),
    )
    parser.add_argument("shell", nargs="?", choices=tuple(SHELLS), metavar="SHELL", help="bash, zsh or fish")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.shell is None:
        print("This line lets a shell complete the words of prior-fast. To have it in every shell, add it to the file.")
        for name, (file, line) in SHELLS.items():
            print(f"\n{name}, {file}:\n  {line}")
        return 0
    from argcomplete import shellcode

    print(shellcode(["prior-fast"], shell=args.shell))
    return 0
