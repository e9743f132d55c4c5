"""The command ``narrows``, also as ``python -m narrows``.

Ctrl-C while the command is still imported ends it with one line, as later.
"""

import sys


def main() -> None:
    """Run the command and exit."""
    try:
        from narrows.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("narrows: interrupted.\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
