// Whether the other end of a loopback connection is a socket of one process: read from /proc, as tailscaled's word alone could be about an earlier connection.
import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";

// 127.0.0.1 as proc_net_tcp(5) writes it on little-endian machines, and on others.
const LOOPBACK = ["0100007F", "7F000001"];

/** Connections over IPv4 loopback as `PORT:PORT` (ours here, theirs there) with the inode of their socket, and the sockets of the process. */
type Snapshot = { readonly inodes: ReadonlyMap<string, string>; readonly owned: ReadonlySet<string> };

/**
 * tailscaled knows a connection that it made over loopback by its port alone, and remembers it until both its ends are closed: when ours is closed first,
 * another process can take the port and would be told to be that peer (seen). A process cannot take a socket of tailscaled's.
 */
export class SocketOwner {
  readonly #pid: () => number | null;
  readonly #proc: string;
  /** Begun after it was asked for; null while none waits to begin. */
  #next: Promise<Snapshot | null> | null = null;
  #running: Promise<unknown> = Promise.resolve();
  #isAble = true;

  /** @param pid null while the process does not run */
  constructor(pid: () => number | null, proc = "/proc") {
    this.#pid = pid;
    this.#proc = proc;
  }

  /** Whether /proc told when it was looked at last. */
  get isAble(): boolean {
    return this.#isAble;
  }

  /**
   * Whether the process holds the socket 127.0.0.1:`port` that is connected to 127.0.0.1:`localPort`. Null when /proc does not tell. Never rejects. Those who
   * ask at the same time share one look.
   */
  async owns(port: number, localPort: number): Promise<boolean | null> {
    this.#next ??= this.#running.then(() => {
      this.#next = null;
      const look = this.#look().catch(() => null);
      this.#running = look;
      return look;
    });
    const snapshot = await this.#next;
    // While the process does not run there is nothing to be told of.
    if (this.#pid() !== null) this.#isAble = snapshot !== null;
    if (snapshot === null) return null;
    const inode = snapshot.inodes.get(`${port}:${localPort}`);
    return inode !== undefined && snapshot.owned.has(inode);
  }

  async #look(): Promise<Snapshot> {
    const pid = this.#pid();
    if (pid === null) throw new Error("The process does not run");
    const table = await readFile(join(this.#proc, "net", "tcp"), "latin1");
    const owned = new Set<string>();
    const dir = join(this.#proc, String(pid), "fd");
    for (const link of await Promise.all((await readdir(dir)).map((fd) => readlink(join(dir, fd)).catch(() => "")))) {
      const inode = /^socket:\[(\d+)\]$/.exec(link)?.[1];
      if (inode !== undefined) owned.add(inode);
    }
    return { inodes: connections(table), owned };
  }
}

/** The lines of proc_net_tcp(5): number, local and remote address in hexadecimal, state, queues, timer, retransmits, uid, timeout, inode. */
function connections(table: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of table.split("\n").slice(1)) {
    const [, local = "", remote = "", , , , , , , inode = ""] = line.trim().split(/\s+/);
    const [[address = "", port = ""], [other = "", otherPort = ""]] = [local.split(":"), remote.split(":")];
    if (LOOPBACK.includes(address) && LOOPBACK.includes(other) && inode !== "0")
      found.set(`${Number.parseInt(port, 16)}:${Number.parseInt(otherPort, 16)}`, inode);
  }
  return found;
}
