// Takes our seal out of a state that a tailscaled with a kernel interface is about to read.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeSecretFile } from "../lib/secret-file.ts";
import { unsealedConfig } from "./serve-config.ts";

/**
 * With a kernel interface tailscaled opens a socket for each port of its serve config and each address: 131,000 for a seal, in which it hangs (seen with
 * 1.102.5). So the seal of earlier userspace networking goes before it starts: the state is a JSON object of base64 texts (ipn/store), in which
 * `_serve/PROFILE` is a serve config. What cannot be read so is left as it is. To be called while no tailscaled has the state.
 */
export async function takeSealOut(stateDir: string): Promise<void> {
  const file = join(stateDir, "tailscaled.state");
  try {
    const state = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
    const served = Object.entries(state).flatMap(([key, value]) => {
      if (!key.startsWith("_serve/") || typeof value !== "string") return [];
      const { config, changed } = unsealedConfig(JSON.parse(Buffer.from(value, "base64").toString("utf8")) as Parameters<typeof unsealedConfig>[0]);
      return changed ? [[key, Buffer.from(JSON.stringify(config)).toString("base64")] as const] : [];
    });
    if (served.length > 0) await writeSecretFile(file, JSON.stringify({ ...state, ...Object.fromEntries(served) }));
  } catch {
    // No state yet, or one of another form: tailscaled judges it.
  }
}
