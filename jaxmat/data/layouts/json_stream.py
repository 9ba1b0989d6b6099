"""JSON from a stream, a row at a time: the text of each value is kept beside it.

The standard library's decoder does the work; it takes what Python and pandas write, NaN included,
and half the time of ijson, which gives no text that could be handed on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

from jaxmat.data.formats.sites import shortened
from jaxmat.errors import UserError

_CHUNK = 2**18  # characters
# A crystal of the most sites that can be used takes a few million.
MAX_VALUE = 64 * 2**20
_SPACE = re.compile(r"[ \t\r\n]*")


class Value(NamedTuple):
    """A JSON value and its text."""

    value: Any
    text: str


class JsonStream:
    """Reads values one after another."""

    def __init__(self, stream: TextIO) -> None:
        """Reads nothing yet."""
        self._stream, self._text, self._place, self._line = stream, "", 0, 1
        self._ended = False
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Returns the next character that is no white space, "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._place)
            self._place = match.end() if match else self._place
            if self._place < len(self._text) or not self._fill():
                return self._text[self._place : self._place + 1]

    def expect(self, character: str) -> None:
        """Goes on after a character.

        Raises:
            UserError: another one is next.
        """
        if self.peek() != character:
            found = (
                shortened(self._text[self._place : self._place + 30]) if self.peek() else "the end"
            )
            raise UserError(f"not JSON: line {self.line()}: expected {character!r}, found {found}")
        self._place += 1

    def value(self) -> Value:
        """Returns the next value.

        Raises:
            UserError: it is not JSON, or too long.
        """
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._place)
            except RecursionError as reason:
                raise UserError(
                    f"not JSON that can be read: line {self.line()}: too deep"
                ) from reason
            except json.JSONDecodeError as reason:
                if not self._fill():
                    problem = f"not JSON: line {self.line()} is cut short or wrong"
                    raise UserError(problem) from reason
            except ValueError as reason:
                raise UserError(
                    f"line {self.line()}: a number has more digits than can be read"
                ) from reason
            else:
                # A number may go on.
                if end < len(self._text) or not self._fill():
                    text = self._text[self._place : end]
                    self._place = end
                    return Value(value, text)
            if len(self._text) - self._place > MAX_VALUE:
                raise UserError(f"line {self.line()}: a value has more than {MAX_VALUE} characters")

    def items(self) -> Iterator[Value]:
        """Yields the items of the list that is next."""
        self.expect("[")
        if self.peek() == "]":
            self._place += 1
            return
        while True:
            yield self.value()
            if self.peek() == "]":
                self._place += 1
                return
            self.expect(",")

    def keys(self) -> Iterator[str]:
        """Yields the keys of the object that is next; after each its value is to be read."""
        self.expect("{")
        if self.peek() == "}":
            self._place += 1
            return
        while True:
            key = self.value().value
            if not isinstance(key, str):
                raise UserError(f"not JSON: line {self.line()}: a key is {shortened(key)}")
            self.expect(":")
            yield key
            if self.peek() == "}":
                self._place += 1
                return
            self.expect(",")

    def line(self) -> int:
        """Returns the number of the line where it is."""
        return self._line + self._text.count("\n", 0, self._place)

    def _fill(self) -> bool:
        """Reads on; what was read before is dropped."""
        if self._ended:
            return False
        more = self._stream.read(max(_CHUNK, len(self._text) - self._place))
        if not more:
            self._ended = True
            return False
        self._line += self._text.count("\n", 0, self._place)
        self._text, self._place = self._text[self._place :] + more, 0
        return True
