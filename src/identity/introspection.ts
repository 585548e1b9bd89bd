// Asking an issuer about a token that says nothing by itself (RFC 7662).
import type { IssuerPlan } from "../plan/auth-model.ts";
import type { Authentication, Proof } from "./authenticate.ts";
import { AnswerMemory } from "./issuer-memory.ts";
import type { JsonObject } from "./issuer-transport.ts";
import { checkTimes, TokenRefusal } from "./jwt-verify.ts";

type Options = {
  readonly plan: IssuerPlan;
  readonly introspection: NonNullable<IssuerPlan["introspection"]>;
  /** @throws {IssuerError} */
  readonly post: (form: URLSearchParams, headers: Readonly<Record<string, string>>) => Promise<JsonObject>;
  /** @throws {TokenRefusal} */
  readonly prove: (answer: JsonObject) => Proof;
  /** What an error means to the client; it is logged there. */
  readonly explain: (error: unknown) => Authentication;
};

const MAX_KEPT = 10_000;
/** Tokens that are asked about at a time: a flood of invented ones must not pile up here. */
const MAX_ASKED = 256;

export class Introspection {
  readonly #options: Options;
  readonly #headers: Readonly<Record<string, string>>;
  // Apart, so that invented tokens push no good one out.
  readonly #good = new AnswerMemory<Authentication>(MAX_KEPT);
  readonly #bad = new AnswerMemory<Authentication>(MAX_KEPT);
  readonly #asked = new Map<string, Promise<Authentication>>();
  #underWay = 0;

  constructor(options: Options) {
    this.#options = options;
    const { clientId, clientSecret } = options.introspection;
    // The id and the secret are form-encoded before they are put together (RFC 6749, 2.3.1).
    const basic = clientSecret === null ? null : Buffer.from(`${formEncoded(clientId)}:${formEncoded(clientSecret)}`).toString("base64");
    this.#headers = basic === null ? {} : { authorization: `Basic ${basic}` };
  }

  /** At once when it was asked about a moment ago. Never rejects. @param hash of the token */
  find(token: string, hash: string): Authentication | Promise<Authentication> {
    const { cacheMs } = this.#options.introspection;
    const known = this.#good.get(hash) ?? this.#bad.get(hash) ?? this.#asked.get(hash);
    if (known !== undefined && known !== null) return known;
    if (this.#underWay >= MAX_ASKED)
      return { kind: "unavailable", message: `Issuer '${this.#options.plan.name}' is being asked about ${MAX_ASKED} tokens already`, retryAfterS: 1 };
    this.#underWay += 1;
    const answer = this.#ask(token, hash).finally(() => {
      this.#underWay -= 1;
      if (this.#asked.get(hash) === answer) this.#asked.delete(hash);
    });
    // Where each request asks, none takes the answer that was on its way before.
    if (cacheMs > 0) this.#asked.set(hash, answer);
    return answer;
  }

  async #ask(token: string, hash: string): Promise<Authentication> {
    const { plan, introspection, post, prove, explain } = this.#options;
    // What the issuer says was true no later than now.
    const untilMs = Date.now() + introspection.cacheMs;
    try {
      const form = new URLSearchParams({ token, token_type_hint: "access_token" });
      if (introspection.clientSecret === null) form.set("client_id", introspection.clientId);
      const answer = await post(form, this.#headers);
      try {
        checkAnswer(answer, plan);
        const proof = prove(answer);
        this.#good.put(hash, proof, Math.min(untilMs, proof.expiresAtMs ?? untilMs));
        return proof;
      } catch (error) {
        const refused = explain(error);
        if (refused.kind === "invalid") this.#bad.put(hash, refused, untilMs);
        return refused;
      }
    } catch (error) {
      return explain(error);
    }
  }
}

function checkAnswer(answer: JsonObject, { issuer, clockToleranceMs }: IssuerPlan): void {
  // Anything but a plain yes is a no.
  if (answer["active"] !== true) throw new TokenRefusal("The token is not active");
  if (answer["iss"] !== undefined && answer["iss"] !== issuer) throw new TokenRefusal("The token is of another issuer");
  const type = answer["token_type"];
  if (type !== undefined && (typeof type !== "string" || type.toLowerCase() !== "bearer")) throw new TokenRefusal("The token is no bearer token");
  checkTimes(answer, clockToleranceMs);
}

function formEncoded(text: string): string {
  return new URLSearchParams([["", text]]).toString().slice(1);
}
