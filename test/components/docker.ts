// Docker: Sidegate's image, built once, as a container of its own or in the projects of compose/.
import { execFile } from "node:child_process";
import { chmod, cp, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { GenericContainer, Wait, type StartedTestContainer } from "testcontainers";
import type { CommandResult } from "./command.ts";
import { componentsDir } from "./require.ts";

// Its helper container comes from a registry; what is started here is removed by dispose.
process.env["TESTCONTAINERS_RYUK_DISABLED"] = "true";

const REPOSITORY = new URL("../..", import.meta.url).pathname;
const IMAGE = "sidegate:test";
const MCP_IMAGE = "sidegate-example-mcp:test";
const BUILD_TIMEOUT_MS = 300_000;
const START_TIMEOUT_MS = 60_000;
const COMMAND_TIMEOUT_MS = 120_000;

const execute = promisify(execFile);

/** Why the Docker stories cannot run here, for `skipWithout`, or null when they can. */
export async function missingDocker(): Promise<string | null> {
  try {
    await docker(["version"]);
  } catch {
    return "No Docker engine answers";
  }
  try {
    await docker(["compose", "version"]);
  } catch {
    return "There is no docker compose v2";
  }
  try {
    await docker(["image", "inspect", "node:26-bookworm-slim"]);
  } catch {
    return "There is no base image 'node:26-bookworm-slim'";
  }
  return null;
}

/** Runs the Docker client and gives its standard output. @throws with its standard error */
export async function docker(args: string[], options: { cwd?: string; env?: Record<string, string>; timeoutMs?: number } = {}): Promise<string> {
  const { stdout } = await execute("docker", args, {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...process.env, ...options.env },
    timeout: options.timeoutMs ?? COMMAND_TIMEOUT_MS,
    maxBuffer: 64 * 1024 * 1024,
  });
  return stdout;
}

const built = new Map<string, Promise<string>>();

/** Builds the image of the Dockerfile, once in a process (about a second when nothing changed), and gives its tag. */
export function buildImage(): Promise<string> {
  return built.getOrInsertComputed(IMAGE, (tag) => build(tag, "Dockerfile"));
}

/** Builds the image of the example MCP server and gives its tag. */
export function buildMcpImage(): Promise<string> {
  return built.getOrInsertComputed(MCP_IMAGE, (tag) => build(tag, "compose/mcp/Dockerfile"));
}

// Test files run side by side in processes of their own: the lock lets the second one find the first one's layers.
async function build(tag: string, dockerfile: string): Promise<string> {
  await mkdir(componentsDir, { recursive: true });
  const args = [join(componentsDir, "image.lock"), "docker", "build", "--force-rm", "--tag", tag, "--file", dockerfile, "."];
  const failure = await execute("flock", args, { cwd: REPOSITORY, timeout: BUILD_TIMEOUT_MS, maxBuffer: 64 * 1024 * 1024 }).then(
    () => null,
    (error: { stdout: string; stderr: string }) => `${error.stdout}\n${error.stderr}`,
  );
  if (failure !== null) throw new Error(`Cannot build the image '${tag}':\n${failure.split("\n").slice(-30).join("\n")}`);
  return tag;
}

export type ImageRun = AsyncDisposable & {
  readonly container: StartedTestContainer;
  /** Host directory that is mounted at /etc/sidegate. */
  readonly dir: string;
  /** Host port of a port of the container. */
  port(containerPort: number): number;
  /** Standard output and error so far. */
  logs(): Promise<string>;
  /** Runs a command of Sidegate in the container, as `exec("status")`. */
  exec(...command: string[]): Promise<{ exitCode: number; output: string }>;
  /** Saves sidegate.yaml as an editor does: writes beside it, then renames. */
  save(yaml: string): Promise<void>;
  /** `docker stop`: SIGTERM, SIGKILL after 10 s. Gives the exit code. */
  stop(): Promise<number>;
};

/**
 * Starts the image as its documentation says (read-only, no capabilities, the directory mounted) and waits until it is healthy.
 * @param args.yaml the whole sidegate.yaml
 * @param args.ports ports of the container to publish on free ports of the host
 * @param args.files further files in /etc/sidegate, by name
 * @param args.mounts further directories of the host, read-only, by their place in the container
 * @param args.tmpfs further file systems in memory, with their mount options
 * @param args.memoryBytes limit of the container's memory
 */
export async function startImage(args: {
  yaml: string;
  ports: number[];
  env?: Record<string, string>;
  files?: Record<string, string>;
  mounts?: Record<string, string>;
  tmpfs?: Record<string, string>;
  memoryBytes?: number;
}): Promise<ImageRun> {
  const image = await buildImage();
  const dir = await mkdtemp(join(tmpdir(), "sidegate-image-"));
  const save = async (yaml: string): Promise<void> => {
    await writeFile(join(dir, "sidegate.yaml.new"), yaml);
    await rename(join(dir, "sidegate.yaml.new"), join(dir, "sidegate.yaml"));
  };
  await chmod(dir, 0o755); // the image's user is nobody on the host
  for (const [name, text] of Object.entries(args.files ?? {})) await writeFile(join(dir, name), text);
  await save(args.yaml);

  let output = "";
  let container: StartedTestContainer;
  const mounts = Object.entries({ ...args.mounts, "/etc/sidegate": dir });
  try {
    container = await new HardenedContainer(image, args.memoryBytes)
      .withBindMounts(mounts.map(([target, source]) => ({ source, target, mode: "ro" })))
      .withTmpFs({ "/tmp": "", "/var/lib/sidegate": "uid=65532,gid=65532,mode=700", ...args.tmpfs })
      .withEnvironment(args.env ?? {})
      .withExposedPorts(...args.ports)
      .withLogConsumer((stream) => stream.on("data", (chunk: Buffer | string) => (output += chunk.toString())))
      .withWaitStrategy(Wait.forHealthCheck())
      .withStartupTimeout(START_TIMEOUT_MS)
      .start();
  } catch (error) {
    await rm(dir, { recursive: true, force: true });
    throw new Error(`The container did not become healthy:\n${output}`, { cause: error });
  }
  const id = container.getId();

  return {
    container,
    dir,
    save,
    port: (containerPort) => container.getMappedPort(containerPort),
    logs: async () => {
      const { stdout, stderr } = await execute("docker", ["logs", id], { maxBuffer: 64 * 1024 * 1024 });
      return stdout + stderr;
    },
    exec: (...command) => container.exec(["sidegate", ...command]),
    stop: async () => {
      await docker(["stop", id]);
      return Number(await docker(["inspect", "--format", "{{.State.ExitCode}}", id]));
    },
    [Symbol.asyncDispose]: async () => {
      await docker(["rm", "--force", "--volumes", id]);
      await rm(dir, { recursive: true, force: true });
    },
  };
}

// What testcontainers has no method for. The image's own health check, asked more often.
class HardenedContainer extends GenericContainer {
  constructor(image: string, memoryBytes = 0) {
    super(image);
    this.createOpts.Healthcheck = { Interval: 1_000_000_000 };
    // Without swap: what does not fit is killed.
    if (memoryBytes > 0) Object.assign(this.hostConfig, { Memory: memoryBytes, MemorySwap: memoryBytes });
    this.hostConfig.ReadonlyRootfs = true;
    this.hostConfig.CapDrop = ["ALL"];
    this.hostConfig.SecurityOpt = ["no-new-privileges:true"];
  }
}

/** Runs the image to its end, as hardened as `startImage`: for starts that fail. `flags` are further ones of `docker run`. */
export async function runImage(flags: string[], ...command: string[]): Promise<CommandResult> {
  const image = await buildImage();
  const args = ["run", "--rm", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", ...flags, image, ...command];
  return execute("docker", args, { timeout: COMMAND_TIMEOUT_MS }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }: CommandResult) => ({ code, stdout, stderr }),
  );
}

/** Runs a script of Node.js in the network of a container, as a service beside its sidecar. */
export async function startNeighbour(containerId: string, script: string): Promise<AsyncDisposable> {
  const id = (await docker(["run", "--detach", "--network", `container:${containerId}`, "--entrypoint", "node", await buildImage(), "--eval", script])).trim();
  return {
    [Symbol.asyncDispose]: async () => {
      await docker(["rm", "--force", "--volumes", id]);
    },
  };
}

/** What HEALTHCHECK found: `docker inspect` .State.Health, whose log ends with the newest check. */
export async function healthOf(containerId: string): Promise<{ Status: string; Log: { ExitCode: number; Output: string }[] }> {
  return JSON.parse(await docker(["inspect", "--format", "{{json .State.Health}}", containerId])) as Awaited<ReturnType<typeof healthOf>>;
}

export type ComposeProject = AsyncDisposable & {
  /** Copy of the folder of compose/, whose config/ is mounted: edits stay out of the repository. */
  readonly dir: string;
  /** Runs `docker compose ...args` for the project and gives its standard output. */
  compose(...args: string[]): Promise<string>;
  /** Id of the container of a service. */
  id(service: string): Promise<string>;
  /** Host port of a published port of a service. */
  port(service: string, containerPort: number): Promise<number>;
  /** Standard output and error of all services so far, or of one. */
  logs(service?: string): Promise<string>;
  /** Saves config/sidegate.yaml as an editor does: writes beside it, then renames. */
  save(yaml: string): Promise<void>;
};

/**
 * Starts a project of compose/ with images built from the working tree, on free ports, and waits until it is healthy.
 * @param args.env what the compose file and the configuration take from the environment
 * @param args.yaml a config/sidegate.yaml other than the project's own
 * @param args.environment further variables of Sidegate's container, which the compose file does not hand on
 * @param args.files further files, by their path in the folder, as a .env
 * @param args.hosts names that the containers know for this machine
 */
export async function startCompose(
  folder: "mcp" | "mcp-oauth" | "ib-gateway" | "ib-gateway-tailscale",
  args: {
    env?: Record<string, string>;
    yaml?: string;
    environment?: Readonly<Record<string, string>>;
    files?: Readonly<Record<string, string>>;
    hosts?: readonly string[];
  } = {},
): Promise<ComposeProject> {
  const isMcp = folder.startsWith("mcp");
  // Where a route says its own address, whoever starts it chooses the port.
  const ports: Record<string, string> = isMcp ? (folder === "mcp" ? { MCP_PORT: "0" } : {}) : { IB_LIVE_PORT: "0", IB_PAPER_PORT: "0" };
  const env = { ...args.env, ...ports, SIDEGATE_IMAGE: await buildImage(), ...(isMcp ? { MCP_IMAGE: await buildMcpImage() } : {}) };
  const dir = await mkdtemp(join(tmpdir(), "sidegate-compose-"));
  await cp(join(REPOSITORY, "compose", folder), dir, { recursive: true });
  await chmod(dir, 0o755);
  const project = dir.slice(dir.lastIndexOf("/") + 1).toLowerCase();
  const compose = (...command: string[]): Promise<string> => docker(["compose", "--project-name", project, ...command], { cwd: dir, env });
  const logs = (service?: string): Promise<string> => compose("logs", "--no-color", ...(service === undefined ? [] : [service]));
  const file = join(dir, "config", "sidegate.yaml");
  const save = async (yaml: string): Promise<void> => {
    await writeFile(`${file}.new`, yaml);
    await rename(`${file}.new`, file);
  };
  const close = async (): Promise<void> => {
    await compose("down", "--volumes", "--remove-orphans", "--timeout", "10");
    await rm(dir, { recursive: true, force: true });
  };

  try {
    // The same health checks, asked more often.
    const healthcheck = { interval: "1s" };
    const override = {
      services: {
        sidegate: { healthcheck, environment: args.environment ?? {} },
        ...(isMcp ? {} : { "ib-gateway": { healthcheck } }),
        network: { extra_hosts: (args.hosts ?? []).map((name) => `${name}:host-gateway`) },
      },
    };
    await writeFile(join(dir, "compose.override.yaml"), JSON.stringify(override));
    for (const [name, text] of Object.entries(args.files ?? {})) await writeFile(join(dir, name), text);
    if (args.yaml !== undefined) await save(args.yaml);
    await compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", String(START_TIMEOUT_MS / 1000));
  } catch (error) {
    const output = await logs().catch(() => "");
    await close();
    throw new Error(`The compose project '${folder}' did not become healthy:\n${output}`, { cause: error });
  }

  return {
    dir,
    compose,
    logs,
    save,
    id: async (service) => (await compose("ps", "--all", "--quiet", service)).trim(),
    port: async (service, containerPort) => {
      const address = await compose("port", service, String(containerPort));
      return Number(address.trim().slice(address.lastIndexOf(":") + 1));
    },
    [Symbol.asyncDispose]: close,
  };
}
