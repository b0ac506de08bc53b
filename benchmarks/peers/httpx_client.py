"""How well does a client measure that reads streams with httpx, line by line?"""

from __future__ import annotations

import asyncio
import time

import httpx

from benchmarks.peers import script

_LIMIT_S = 600.0


async def main(work: script.Task) -> list[script.Record]:
    """Sends the requests of a task; their records."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=_LIMIT_S, trust_env=False) as client:

        async def one(request_id: str) -> script.Record | None:
            record = script.Record(request_id, time.perf_counter_ns(), [])
            headers = script.headers(request_id)
            try:
                async with client.stream("POST", work.url, content=work.body, headers=headers) as answer:
                    answer.raise_for_status()
                    async for line in answer.aiter_lines():
                        if line and script.is_token(line.removeprefix("data: ")):
                            record.token_ns.append(time.perf_counter_ns())
            except httpx.HTTPError:
                return None
            return record

        return await script.drive(work, one)


if __name__ == "__main__":
    asked = script.task()
    script.write(asked, httpx.__version__, asyncio.run(main(asked)))
