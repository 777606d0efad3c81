"""The translator: `meaning` in a process of its own, which is stopped when a text takes it too long.

`a JOIN b JOIN b JOIN b …` without ON costs sqlglot twice the time for each word: 24 words took three minutes.  A
thread could not be stopped, and would hold everybody up; a process can be killed, and the next text gets a new one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys

from pipeline.door.dialect import Meaning, Session, meaning
from pipeline.errors import QueryError

SECONDS = 2.0
MEMORY = 512 * 2**20
LINE = 4 * 2**20


class Translator:
    """One text at a time; a process is started for the first one and after each that took too long."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Have the process and its parser ready before the first question."""
        async with self._turn:
            await self._started()

    async def __call__(self, sql: str, session: Session) -> Meaning:
        """See `dialect.meaning`.  Raises QueryError when it takes longer than 2 s."""
        async with self._turn:
            process = await self._started()
            try:
                return await asyncio.wait_for(self._asked(process, sql, session), SECONDS)
            except (TimeoutError, OSError, ValueError, EOFError, asyncio.LimitOverrunError):
                raise QueryError(
                    f"MySQL's form of this could not be translated in {SECONDS:.0f} s; ask in DuckDB's SQL"
                ) from None
            finally:
                # Also when we are cancelled: an answer that is still to come would be taken for the next one's.
                if self._process is process and not self._idle:
                    await self.close()

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "pipeline.door.translator",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE,
                start_new_session=True,  # Ctrl-C is for the door, which ends us
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )  # fmt: skip
            assert self._process.stdout is not None
            await self._process.stdout.readline()
        self._idle = True
        return self._process

    async def _asked(self, process: asyncio.subprocess.Process, sql: str, session: Session) -> Meaning:
        assert process.stdin is not None and process.stdout is not None
        self._idle = False
        process.stdin.write(json.dumps([sql, session]).encode() + b"\n")
        await process.stdin.drain()
        found: Meaning = json.loads(await process.stdout.readuntil(b"\n"))
        self._idle = True
        return found


def main() -> None:
    """Lines of [text, session] in, lines of meanings out, until the door closes its end."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of every text that it does not know
    meaning("SELECT 1 DIV 1", {"user": "", "id": 0, "database": "", "variables": {}})
    print("ready", flush=True)
    for line in sys.stdin:
        sql, session = json.loads(line)
        try:
            found = meaning(sql, session)
        except Exception as error:  # whatever its parser stumbles over is about this one text
            found = {"error": [1064, f"MySQL's form of this could not be translated: {type(error).__name__}"]}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
