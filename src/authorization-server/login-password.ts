// Login with a name and a password of the file: checked two at a time, in the same time for every name, and slowed when somebody guesses.
import type { Person } from "../identity/person.ts";
import { decoyHash, isUserName, verifyPassword } from "../lib/password-file.ts";
import { printable } from "../lib/printable.ts";
import type { LoginPlan } from "../plan/auth-model.ts";
import type { Log } from "../telemetry/log.ts";
import type { EndpointRequest } from "./endpoint.ts";
import { LoginError } from "./login-source.ts";
import type { LoginThrottle } from "./login-throttle.ts";

type Asking = Pick<EndpointRequest, "client" | "requestId">;
type Users = NonNullable<LoginPlan["password"]>;

export type PasswordLogin = {
  /** @param request its `client` is the address, never what a header says of it. @throws {LoginError} refused, throttled, or unavailable when too many wait */
  check(name: string, password: string, request: Asking): Promise<Person>;
};

// Each takes 128 MiB and a thread of the pool, which files and names of hosts need, too.
const MAX_AT_ONCE = 2;
const MAX_WAITING = 16;
const MAX_WAITING_OF_ONE = 4;
const MAX_NAME_CHARS = 64;
const MAX_PASSWORD_CHARS = 1_024;
const RETRY_S = 3;

export function openPasswordLogin(users: Users, throttle: LoginThrottle, log: Log): PasswordLogin {
  const decoy = decoyHash([...users.values()].map(({ hash }) => hash));
  const queue = new HashQueue();
  return {
    check: async (name, password, { client: clientAddress, requestId }) => {
      const short = name.slice(0, MAX_NAME_CHARS);
      // What is typed into the wrong field may be a password.
      const who = { request_id: requestId, user: isUserName(name) ? printable(short) : "(not a user name)", client: clientAddress };
      const attempt = throttle.begin(short, clientAddress);
      if (typeof attempt === "number") {
        const retryAfterS = Math.ceil(attempt / 1_000);
        log.warn({ ...who, retry_after_s: retryAfterS }, "Login with a password put off: too many failed");
        throw new LoginError("throttled", `Too many attempts have failed; try again in ${describeSeconds(retryAfterS)}`, { retryAfterS });
      }
      const user = users.get(name);
      let isRight: boolean;
      try {
        isRight = password.length <= MAX_PASSWORD_CHARS && (await queue.run(clientAddress, async () => await verifyPassword(password, user?.hash ?? decoy)));
      } catch (error) {
        attempt.cancel();
        throw error;
      }
      if (!isRight || user === undefined) {
        attempt.fail();
        log.warn(who, "Login with a password failed");
        throw new LoginError("refused", "The user name or the password is not right");
      }
      attempt.succeed();
      return {
        source: "password",
        subject: name,
        name,
        email: null,
        domain: null,
        orgs: [],
        teams: [],
        groups: user.groups,
        claims: {},
        peer: null,
      };
    },
  };
}

/** The work of one file, a few at a time; the rest waits in turn, and not many of one address. */
class HashQueue {
  #running = 0;
  readonly #waiting: { readonly address: string; readonly start: () => void }[] = [];

  /** @throws {LoginError} when too many wait */
  async run<T>(address: string, work: () => Promise<T>): Promise<T> {
    if (this.#running >= MAX_AT_ONCE) {
      const ofOne = this.#waiting.filter((one) => one.address === address).length;
      if (this.#waiting.length >= MAX_WAITING || ofOne >= MAX_WAITING_OF_ONE)
        throw new LoginError("unavailable", "Too many people log in at once; try again in a moment", {
          detail: "The queue of passwords to check is full",
          retryAfterS: RETRY_S,
        });
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.push({ address, start: resolve });
      await promise;
    } else this.#running += 1;
    try {
      return await work();
    } finally {
      // The next one takes the place over, so that nobody comes in between.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next.start();
    }
  }
}

function describeSeconds(seconds: number): string {
  if (seconds < 60) return seconds === 1 ? "a second" : `${seconds} seconds`;
  const minutes = Math.ceil(seconds / 60);
  return minutes === 1 ? "a minute" : `${minutes} minutes`;
}
