// What an ACME CA says went wrong, as text for people.
import { printable } from "../lib/printable.ts";

/** A problem document (RFC 8555, 6.7). Texts of the CA, fit for a terminal and a log. */
export type AcmeProblem = {
  /** Without its prefix, as `rateLimited`. */
  readonly type: string;
  readonly detail: string;
  /** What is wrong with single names. */
  readonly subproblems: readonly { readonly name: string; readonly detail: string }[];
};

const URN = "urn:ietf:params:acme:error:";
const MAX_SUBPROBLEMS = 20;

/** What to do, where the type tells. */
const REMEDIES: Readonly<Record<string, string>> = {
  externalAccountRequired: "set 'eab' to what the CA gave you",
  caa: "a CAA record of the domain must allow this CA",
};

/** A problem document out of what a CA sent; null when it is none. */
export function parseProblem(value: unknown): AcmeProblem | null {
  const type = textOf(value, "type");
  if (type === "") return null;
  const list = field(value, "subproblems");
  const subproblems = (Array.isArray(list) ? list.slice(0, MAX_SUBPROBLEMS) : []).map((entry: unknown) => ({
    name: textOf(field(entry, "identifier"), "value"),
    detail: textOf(entry, "detail"),
  }));
  return { type: type.startsWith(URN) ? type.slice(URN.length) : type, detail: textOf(value, "detail"), subproblems };
}

/** The end of a sentence: "too many certificates (rateLimited); 'a.example.com': ...; what to do". */
export function describeProblem({ type, detail, subproblems }: AcmeProblem): string {
  const remedy = REMEDIES[type];
  return [
    detail === "" ? type : `${detail} (${type})`,
    ...subproblems.filter((each) => each.detail !== "").map((each) => (each.name === "" ? each.detail : `'${each.name}': ${each.detail}`)),
    ...(remedy === undefined ? [] : [remedy]),
  ].join("; ");
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function textOf(value: unknown, name: string): string {
  const text = field(value, name);
  return typeof text === "string" ? printable(text) : "";
}
