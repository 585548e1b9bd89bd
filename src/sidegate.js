#!/usr/bin/env node
// The launcher behind `npx sidegate`: plain JavaScript, so that an old Node.js gets to a sentence instead of a syntax error.
const MIN_MAJOR = 26;

if (Number(process.versions.node.split(".")[0]) < MIN_MAJOR) {
  process.stderr.write(
    `Sidegate needs Node.js ${MIN_MAJOR} or newer; this is ${process.version}.\n` +
      `Without installing it: npx --package=node@${MIN_MAJOR} --package=sidegate sidegate ${process.argv.slice(2).join(" ")}\n`,
  );
  process.exit(1);
}

// Node.js runs TypeScript everywhere but under node_modules, where npm puts this package: there we strip the types of our own files.
if (import.meta.url.includes("/node_modules/")) await stripOwnTypes();
await import("./main.ts");

async function stripOwnTypes() {
  const { readFileSync } = await import("node:fs");
  const { registerHooks, stripTypeScriptTypes } = await import("node:module");
  const own = new URL("./", import.meta.url).href;
  const emitWarning = process.emitWarning.bind(process);
  registerHooks({
    load(url, context, nextLoad) {
      if (!url.startsWith(own) || !url.endsWith(".ts")) return nextLoad(url, context);
      const text = readFileSync(new URL(url), "utf8");
      // It warns that it is experimental, once, on every start.
      process.emitWarning = () => {};
      const source = stripTypeScriptTypes(text);
      process.emitWarning = emitWarning;
      return { format: "module", source, shortCircuit: true };
    },
  });
}
