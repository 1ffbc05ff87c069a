"""Text for terminals that cannot print every character: what one lacks is written out."""

import codecs
import sys
import unicodedata

HANDLER = "pdswitch.written_out"
# What our own sentences and tables hold; a combining circumflex makes k̂.
WRITTEN_OUT = str.maketrans(
    {
        **dict.fromkeys("–—−‐‑─━", "-"),
        **dict.fromkeys("‘’‚′", "'"),
        **dict.fromkeys("“”„″", '"'),
        **dict.fromkeys("│┃", "|"),
        **dict.fromkeys("█▉▊▋▌▍▎▏", "#"),
        "\u0302": "^",
        "·": "*",
        "×": "x",
        "…": "...",
        "→": "->",
        "≤": "<=",
        "≥": ">=",
        "≈": "~",
        "±": "+-",
        "∞": "inf",
        "α": "alpha",
        "β": "beta",
        "ε": "epsilon",
        "θ": "theta",
        "τ": "tau",
    }
)


def print_anything() -> None:
    """Let standard output and error of this process take every character.

    Where the encoding of the terminal lacks one, its plain form is printed, or a question mark.
    """
    codecs.register_error(HANDLER, _write_out)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # no notebook, and no test, which captures text
            stream.reconfigure(errors=HANDLER)


def _write_out(error: UnicodeError) -> tuple[str, int]:
    """Replace what cannot be encoded by ASCII, as an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(plain, error.object[error.start : error.end])), error.end


def plain(character: str) -> str:
    """Return a character in ASCII: written out, or without its accent, or a question mark."""
    written = character.translate(WRITTEN_OUT)
    bare = unicodedata.normalize("NFKD", written).encode("ascii", "ignore").decode()
    return bare or ("" if unicodedata.combining(character) else "?")
