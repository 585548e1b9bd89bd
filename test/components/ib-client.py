"""ib_async for the tests: connects, then answers commands that come line by line; each answer is one line of JSON.

    python ib-client.py HOST PORT CLIENT_ID [TIMEOUT]

Commands: positions, summary, time, disconnect. It exits with 0 after disconnect and with 1 when it cannot connect.
"""

import asyncio
import json
import logging
import sys

from ib_async import IB

# Its log would only repeat on standard error what the answers say.
logging.disable(logging.CRITICAL)


async def answer(ib, command):
    if command == "positions":
        return [[p.contract.symbol, p.position] for p in ib.positions()]
    if command == "summary":
        return {v.tag: v.value for v in await ib.accountSummaryAsync()}
    if command == "time":
        return (await ib.reqCurrentTimeAsync()).isoformat()
    raise ValueError(command)


async def main(host, port, client_id, timeout=10):
    ib = IB()
    lost = asyncio.Event()
    ib.disconnectedEvent += lost.set

    def say(**answer):
        print(json.dumps(answer), flush=True)

    try:
        await ib.connectAsync(host, int(port), clientId=int(client_id), timeout=float(timeout), raiseSyncErrors=True)
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
        return 1
    say(connected=True, accounts=ib.managedAccounts(), server=ib.client.serverVersion())

    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while True:
        reading = asyncio.ensure_future(lines.readline())
        losing = asyncio.ensure_future(lost.wait())
        await asyncio.wait([reading, losing], return_when=asyncio.FIRST_COMPLETED)
        losing.cancel()
        if lost.is_set():
            say(error="disconnected")
            return 1
        command = reading.result().decode().strip()
        if command in ("disconnect", ""):
            ib.disconnect()
            say(disconnected=True)
            return 0
        try:
            say(answer=await asyncio.wait_for(answer(ib, command), 10))
        except Exception as error:
            say(error=f"{type(error).__name__}: {error}")


sys.exit(asyncio.run(main(*sys.argv[1:])))
