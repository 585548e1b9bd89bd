// The table of commands. Each one is loaded only when it runs: a HEALTHCHECK must not pay for the gateway.
import { GatewayError } from "../lib/errors.ts";
import { nearest } from "../lib/nearest.ts";
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, UsageError, type Io } from "./io.ts";

type Command = {
  readonly summary: string;
  /** What follows `sidegate NAME`, and the options, for --help. */
  readonly usage: string;
  /** Gives the exit code. */
  readonly run: (args: readonly string[], io: Io) => Promise<number>;
};

const FILE_HELP = "FILE is SIDEGATE_CONFIG or /etc/sidegate/sidegate.yaml when it is left out.";

const COMMANDS: Readonly<Record<string, Command>> = {
  run: {
    summary: "serve the file and follow its changes",
    usage: `[FILE]\n\n${FILE_HELP}\nSIGHUP looks at the file again, SIGTERM and SIGINT stop after draining; a second one stops at once.`,
    run: async (args, io) => (await import("./run.ts")).runGateway(args, io),
  },
  check: {
    summary: "judge a file: all problems at once",
    usage: `[FILE] [--format text|json]\n\n${FILE_HELP}\nThe same steps as at a start or reload, without opening anything. Exit code 64 when the file is bad.`,
    run: async (args, io) => (await import("./check.ts")).runCheck(args, io),
  },
  health: {
    summary: "one line saying whether all is well, for HEALTHCHECK",
    usage: `[FILE] [--timeout 3s]\n\nAsks /ready of the admin interface that FILE names, and prints one line: ready, or degraded or unready with what is unwell.\nExit code 0 when it is ready or degraded, for a degraded gateway serves; 1 when it is unready or does not answer.\n${FILE_HELP}`,
    run: async (args, io) => (await import("./health.ts")).runHealth(args, io),
  },
  status: {
    summary: "listeners, routes, upstreams, certificates and the tailnet",
    usage: `[FILE] [--json] [--watch]\n\n  --json   the answer of /status as it is\n  --watch  again every two seconds\n\n${FILE_HELP}`,
    run: async (args, io) => (await import("./status.ts")).runStatus(args, io),
  },
  certs: {
    summary: "certificates: list them, renew one, trust the internal CA",
    usage:
      "[list | renew NAME | trust] [FILE] [--json]\n\n" +
      "  list        each certificate with its issuer, its end and its last error (default)\n" +
      "  renew NAME  order the certificate that has NAME anew, and wait for it\n" +
      "  trust       where the internal CA's certificate is, and how programs are made to trust it; changes nothing\n\n" +
      `Asks the running gateway. Exit code 1 when it does not answer, or when NAME could not be renewed.\n${FILE_HELP}`,
    run: async (args, io) => (await import("./certs.ts")).runCerts(args, io),
  },
  auth: {
    summary: "OAuth: who was granted what, the clients, who is logged in, taking it back",
    usage:
      "[grants | clients | sessions] [FILE] [--json]\n" +
      "       sidegate auth revoke (--grant ID | --session ID | --client ID | --user USER | --all) [FILE] [--json]\n\n" +
      "  grants    each grant: whose it is, for which client, resources and scopes, and when it ends (default)\n" +
      "  clients   each client: of the file, registered by itself, or known by its metadata document\n" +
      "  sessions  each browser session: whose it is, for the pages of which origin, and when it ends\n" +
      "  revoke    takes grants and sessions back; tokens and cookies are worthless at once\n\n" +
      "  --grant ID    this grant\n" +
      "  --session ID  this browser session; the id is not its cookie\n" +
      "  --client ID   all grants of the client, and its registration\n" +
      "  --user USER   all grants and browser sessions of the person, such as github:octocat\n" +
      "  --all         all grants and browser sessions\n" +
      "  --json        the answer of the gateway as it is\n\n" +
      `Asks the running gateway. Exit code 1 when it does not answer, or when there is nothing that --grant, --session, --client or --user names.\n${FILE_HELP}`,
    run: async (args, io) => (await import("./auth.ts")).runAuth(args, io),
  },
  tailnet: {
    summary: "the tailnet: its state and who is connected, its network, logging out",
    usage:
      "[status | netcheck | logout] [FILE] [--json]\n\n" +
      "  status    name, addresses, key, seal, and who is connected; the URL of a login that is waited for (default)\n" +
      "  netcheck  what 'tailscale netcheck' says of the network here; --json is its '--format=json'\n" +
      "  logout    take the node off the tailnet; its connections end, and coming back takes a restart and a new login\n\n" +
      `Asks the running gateway. Exit code 1 when it does not answer, or when the command failed.\n${FILE_HELP}`,
    run: async (args, io) => (await import("./tailnet.ts")).runTailnet(args, io),
  },
  reload: {
    summary: "look at the file now, and say what came of it",
    usage: `[FILE]\n\nExit code 64 when the file is bad (the last good configuration goes on), 1 when the gateway does not answer.\n${FILE_HELP}`,
    run: async (args, io) => (await import("./reload.ts")).runReload(args, io),
  },
  init: {
    summary: "write a commented starter file",
    usage:
      "[mcp | mcp-oauth | ib-gateway | behind-proxy] [--output FILE] [--force]\n\n" +
      "  mcp           an MCP server over HTTPS with a token (default)\n" +
      "  mcp-oauth     an MCP server over HTTPS with a GitHub login\n" +
      "  ib-gateway    IB Gateway, live and paper, over TCP\n" +
      "  behind-proxy  plain HTTP behind nginx, Traefik, Caddy or a load balancer\n\n" +
      "  --output FILE  default: sidegate.yaml; '-' prints it. The schema for editors is written beside it.\n" +
      "  --force        overwrite",
    run: async (args, io) => (await import("./init.ts")).runInit(args, io),
  },
  token: {
    summary: "'token new' makes a bearer token",
    usage: "new [--name NAME] [--scope SCOPE]... [--json]\n\nPrints the token, which is stored nowhere, and the line with its hash for auth.tokens.",
    run: async (args, io) => (await import("./token.ts")).runToken(args, io),
  },
  "hash-password": {
    summary: "hash a password for the file of people who log in with one",
    usage:
      "\n\nAsks for the password twice without showing it, or takes the first line of what is piped in. Prints the hash alone.\n" +
      "A line of the file is NAME:HASH or NAME:HASH:GROUP,GROUP.",
    run: async (args, io) => (await import("./hash-password.ts")).runHashPassword(args, io),
  },
  schema: {
    summary: "print the JSON Schema of the file",
    usage:
      "\n\nFor editors: 'sidegate schema > sidegate.schema.json' beside the file, whose first line is\n  # yaml-language-server: $schema=./sidegate.schema.json",
    run: async (args, io) => (await import("./schema.ts")).runSchema(args, io),
  },
  version: {
    summary: "print the version",
    usage: "",
    run: async (args, io) => (await import("./version.ts")).runVersion(args, io),
  },
};

const EXIT_CODES = "Exit codes: 0 fine, 1 failed, 2 wrong usage, 64 bad configuration, 69 a port or directory cannot be had.";

/** Runs the command that the arguments name and gives the exit code. Every expected failure is one sentence on standard error. */
export async function runCommand(argv: readonly string[], io: Io): Promise<number> {
  const [first = "help", ...args] = argv;
  try {
    if (first === "--version" || first === "-V") return await run("version", args, io);
    if (first === "help" || first === "--help" || first === "-h") return showHelp(args[0], io);
    if (hasHelpFlag(args)) return showHelp(first, io);
    return await run(first, args, io);
  } catch (error) {
    if (error instanceof UsageError) {
      io.stderr(`${error.message}\nRun 'sidegate ${Object.hasOwn(COMMANDS, first) ? `${first} --help` : "help"}'.\n`);
      return EXIT_USAGE;
    }
    if (!(error instanceof GatewayError)) throw error;
    io.stderr(`${error.message}\n`);
    return EXIT_FAILED;
  }
}

function run(name: string, args: readonly string[], io: Io): Promise<number> {
  return commandOf(name).run(args, io);
}

function commandOf(name: string): Command {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command !== undefined) return command;
  const near = nearest(name, Object.keys(COMMANDS));
  throw new UsageError(`Unknown command '${name}'${near === null ? "" : `. Did you mean '${near}'?`}`);
}

function hasHelpFlag(args: readonly string[]): boolean {
  const end = args.indexOf("--");
  return (end === -1 ? args : args.slice(0, end)).some((arg) => arg === "--help" || arg === "-h");
}

function showHelp(name: string | undefined, io: Io): number {
  if (name !== undefined) {
    const { summary, usage } = commandOf(name);
    io.stdout(`sidegate ${name}: ${summary}\n\nUsage: sidegate ${name}${usage.startsWith("\n") ? "" : " "}${usage}`.trimEnd());
    io.stdout(`\n\n${EXIT_CODES}\n`);
    return EXIT_OK;
  }
  const width = Math.max(...Object.keys(COMMANDS).map((each) => each.length));
  const lines = Object.entries(COMMANDS).map(([each, { summary }]) => `  ${each.padEnd(width)}  ${summary}`);
  io.stdout(`Sidegate: a sidecar gateway for a service that listens only on localhost.\n\nUsage: sidegate COMMAND\n\n${lines.join("\n")}\n\n`);
  io.stdout(`'sidegate COMMAND --help' says more. ${FILE_HELP}\nSIDEGATE_LOG_LEVEL sets the log's level where the file is silent.\n${EXIT_CODES}\n`);
  return EXIT_OK;
}
