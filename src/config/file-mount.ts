// Detects that the configuration is a file mounted by itself, whose replacement on the host is never seen in the container.
import { readFile, realpath } from "node:fs/promises";
import { basename, dirname } from "node:path";

/**
 * What to tell somebody who mounted the file and not its directory; null when the directory is mounted, or where the system does not say (no Linux).
 * `mountInfo`: the table of mounts, see proc_pid_mountinfo(5).
 */
export async function explainFileMount(path: string, mountInfo = "/proc/self/mountinfo"): Promise<string | null> {
  try {
    const [real, table] = await Promise.all([realpath(path), readFile(mountInfo, "utf8")]);
    const isMounted = table.split("\n").some((line) => unescape(line.split(" ")[4] ?? "") === real);
    if (!isMounted) return null;
    const directory = dirname(real);
    return `'${real}' is mounted as a single file: edits that replace it on the host, as most editors do, are never seen here. Mount its directory instead, as in: -v "$PWD/config:${directory}:ro" with ${basename(real)} in it`;
  } catch {
    return null;
  }
}

/** Spaces, tabs, line breaks and backslashes stand in the table as octal numbers. */
function unescape(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_all, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
