"""Text and code in so many columns, for pages, reports and the terminal."""

from __future__ import annotations

import io
import itertools
import textwrap
import tokenize

WIDTH = 80


def folded(text: str, first: str = "", other: str = "", width: int = WIDTH) -> list[str]:
    """Prose in lines of ``width``, ``first`` and ``other`` before them; no word is broken."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=other,
        break_long_words=False,
        break_on_hyphens=False,
    )


def broken(code: str, indent: int = 0, width: int = WIDTH) -> str:
    """Python code in lines of ``width``, broken inside its brackets as a formatter would.

    The first line begins at column ``indent`` and is returned without it. A value that has no
    brackets gets some; what nothing divides stays in one piece.
    """
    if indent + len(code) <= width:
        return code
    room, deeper = " " * indent, indent + 4
    pairs = _pairs(code)
    fitting = [pair for pair in pairs if indent + pair[0] < width]
    name, equals, value = code.partition(" = ")
    if equals and not fitting:
        return f"{name} = (\n{room}    {broken(value, deeper, width)}\n{room})"
    if not pairs:
        return code
    # The last bracket is opened first, as in ``outer(...)(inner)``, unless what is before it is
    # itself too long.
    start, end, commas = fitting[-1] if fitting else pairs[0]
    body = code[start + 1 : end].strip()
    if deeper + len(body) > width:
        cuts = [start + 1, *(comma + 1 for comma in commas), end]
        parts = [code[a:b].strip() for a, b in itertools.pairwise(cuts)]
    else:
        parts = [body]
    lines = [code[: start + 1]]
    lines += [" " * deeper + broken(part, deeper, width) for part in parts]
    lines += [room + code[end:]]
    return "\n".join(lines)


def _pairs(code: str) -> list[tuple[int, int, list[int]]]:
    """Outermost brackets with something between: where they open, close and have commas."""
    found: list[tuple[int, int, list[int]]] = []
    opened: list[int] = []
    commas: list[int] = []
    parameters = False  # those of a lambda stay together
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        place = token.start[1]
        if token.string in ("(", "[", "{"):
            opened.append(place)
        elif token.string in (")", "]", "}"):
            start = opened.pop()
            if not opened:
                if code[start + 1 : place].strip():
                    found.append((start, place, commas))
                commas = []
        elif len(opened) == 1:
            if token.string == "," and not parameters:
                commas.append(place)
            elif token.string in ("lambda", ":"):
                parameters = token.string == "lambda"
    return found
