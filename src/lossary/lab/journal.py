"""Optuna's journal file, which a write cut short does not spoil."""

from __future__ import annotations

import json
import os
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock


class Journal(JournalFileBackend):
    """A journal that ends in a whole line whatever happens.

    Optuna's own leaves half a line where the disk is full; the next line is appended to it, and
    nothing after can be read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._gate = JournalFileSymlinkLock(path)
        super().__init__(path, self._gate)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append one line each, all or none."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._gate.acquire()
        try:
            size = self._whole_lines()
            try:
                with open(self._path, "ab") as file:
                    file.write(text.encode())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                os.truncate(self._path, size)
                raise
        finally:
            self._gate.release()

    def _whole_lines(self) -> int:
        """The size of the file, after half a line at its end (a writer was killed) is cut off."""
        with open(self._path, "rb+") as file:
            end = size = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - 65_536)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                end = start + newline + 1
                if newline >= 0:
                    break
            if end < size:
                file.truncate(end)
            return end
