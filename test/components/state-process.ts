// A process of its own that works on a state directory: state-process.ts DIR add|take|write|keys [COUNT]. It says what it did, line by line.
import { openKeys } from "../../src/authorization-server/keys.ts";
import { openSqliteStore } from "../../src/state/sqlite.ts";
import { openLog } from "../../src/telemetry/log.ts";

const [dir = "", action = "", count = "0"] = process.argv.slice(2);
const say = (text: string): void => void process.stdout.write(`${text}\n`);
const store = await openSqliteStore(dir, openLog({ level: "warn", format: "json" }));
say("open");
if (action === "add" || action === "take")
  for (let i = 0; i < Number(count); i += 1) {
    const got = action === "add" ? await store.add(`add:${i}`, String(process.pid), null) : (await store.take(`take:${i}`)) !== null;
    if (got) say(String(i));
  }
if (action === "keys") say(JSON.stringify(await openKeys(store, "test")));
// Until it is killed. What it says is written before the next one begins: standard output is a pipe.
if (action === "write")
  for (let i = 0; ; i += 1) {
    await store.set(`written:${process.pid}:${i}`, `value ${i} ${"x".repeat(i % 3_000)}`, null);
    if (i % 3 === 2) await store.delete(`written:${process.pid}:${i - 1}`);
    say(String(i));
  }
await store.close();
