"""The command `pdswitch` where it is not on the path: ``python -m pdswitch``."""

from pdswitch.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
