// Missing components: a story is skipped with the reason, or fails where every component must be there.
import { accessSync, constants } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import type { TestContext } from "node:test";

/** Where the set-up script keeps what no package manager installs system-wide. */
export const componentsDir = process.env["SIDEGATE_COMPONENTS"] ?? join(homedir(), ".cache", "sidegate-components");

/** Absolute path of a program on PATH or of the components, or null. */
export function findProgram(name: string): string | null {
  const dirs = [join(componentsDir, "bin"), ...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin"];
  for (const dir of dirs) {
    try {
      accessSync(join(dir, name), constants.X_OK);
      return join(dir, name);
    } catch {
      // Not in this directory.
    }
  }
  return null;
}

/**
 * Ends the test as skipped because a component is missing: `if (skipWithout(t, reason)) return`.
 * @param reason null when the component is there
 * @throws with REQUIRE_COMPONENTS=1, as in CI
 */
export function skipWithout(t: TestContext, reason: string | null): boolean {
  if (reason === null) return false;
  const text = `${reason}; 'bash test/components/setup.sh' installs it`;
  if (process.env["REQUIRE_COMPONENTS"] === "1") throw new Error(text);
  t.skip(text);
  return true;
}
