"""How well does a client measure that reads streams as ``vllm bench serve`` does? aiohttp, event by event.

A stand-in, without vLLM's tokenizers and imports: ``iter_any``, events cut at the blank line, one ``json.loads`` and
one ``time.perf_counter_ns`` for each.
"""

from __future__ import annotations

import asyncio
import time

import aiohttp

from benchmarks.peers import script

_LIMIT_S = 6 * 3600


async def main(work: script.Task) -> list[script.Record]:
    """Sends the requests of a task; their records."""
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, ttl_dns_cache=300, keepalive_timeout=60)
    limit = aiohttp.ClientTimeout(total=_LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:

        async def one(request_id: str) -> script.Record | None:
            record = script.Record(request_id, time.perf_counter_ns(), [])
            headers = script.headers(request_id)
            try:
                async with session.post(work.url, data=work.body, headers=headers) as answer:
                    answer.raise_for_status()
                    await _read(answer.content, record.token_ns)
            except aiohttp.ClientError:
                return None
            return record

        return await script.drive(work, one)


async def _read(stream: aiohttp.StreamReader, token_ns: list[int]) -> None:
    rest = ""
    async for part in stream.iter_any():
        *events, rest = (rest + part.decode()).split("\n\n")
        token_ns.extend(time.perf_counter_ns() for event in events if script.is_token(event.removeprefix("data: ")))


if __name__ == "__main__":
    asked = script.task()
    script.write(asked, aiohttp.__version__, asyncio.run(main(asked)))
