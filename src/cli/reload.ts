// sidegate reload: asks the running gateway to look at its file now.
import { askAdmin } from "./admin-client.ts";
import { fromNow } from "./certificate-text.ts";
import { configFile, EXIT_CONFIG, EXIT_FAILED, EXIT_OK, parseCommand, type Io } from "./io.ts";

// A reload reads files and binds ports; one that takes longer hangs.
const TIMEOUT_MS = 60_000;

export async function runReload(args: readonly string[], io: Io): Promise<number> {
  const { positionals } = parseCommand(args, {}, 1);
  const answer = await askAdmin(configFile(io, positionals[0]), io.env, "POST /reload", TIMEOUT_MS);
  const result = JSON.parse(answer.body) as { changed?: boolean; loaded_at?: string; text?: string; error?: string };
  if (answer.status === 200) {
    // The watch is often first: who has just saved sees by the time that the edit was taken.
    const taken = result.loaded_at === undefined ? "" : `: the file was taken ${fromNow(result.loaded_at, new Date())} and serves`;
    io.stdout(result.changed === true ? "Reloaded\n" : `Nothing has changed${taken}\n`);
    io.stderr(result.text ?? "");
    return EXIT_OK;
  }
  io.stderr(
    answer.status === 422 ? `${result.text ?? ""}The last good configuration goes on\n` : `The gateway cannot reload: ${result.error ?? answer.status}\n`,
  );
  return answer.status === 422 ? EXIT_CONFIG : EXIT_FAILED;
}
