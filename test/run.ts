// Runs the tests: every file in a process of its own, some at once; the last line counts what passed, failed and was skipped.
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { parseArgs } from "node:util";

// Stories mostly wait for sockets: a few more processes than cores keep the cores busy.
const CONCURRENCY = 4;
const TEST_TIMEOUT_MS = 180_000;

const { positionals, values } = parseArgs({ allowPositionals: true, options: { only: { type: "string" } } });
const globPatterns = positionals.length > 0 ? positionals : ["{src,test,schema,examples}/**/*.test.ts"];
const count = { passed: 0, failed: 0, skipped: 0 };

const stream = run({
  globPatterns,
  concurrency: CONCURRENCY,
  timeout: TEST_TIMEOUT_MS,
  // A story that failed half way may leave a socket open, which must not hold up the others.
  forceExit: true,
  ...(values.only === undefined ? {} : { testNamePatterns: [values.only] }),
});
stream.on("test:pass", (event) => {
  if (event.skip !== undefined || event.todo !== undefined) count.skipped += 1;
  else if (event.details.type !== "suite") count.passed += 1;
});
stream.on("test:fail", () => {
  count.failed += 1;
});
stream.compose(new spec()).pipe(process.stdout);
// At the very end, so that it is the last line, whatever ends the run.
process.on("exit", () => {
  process.exitCode = count.failed > 0 || count.passed === 0 ? 1 : 0;
  process.stdout.write(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped\n`);
});
