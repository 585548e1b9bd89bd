// The metadata of an issuer: OpenID configuration, or that of an authorization server (RFC 8414), wherever it keeps it.
import { printable } from "../lib/printable.ts";
import { IssuerError, type IssuerTransport, type JsonObject } from "./issuer-transport.ts";

export type IssuerMetadata = {
  /** The document, byte for byte. */
  readonly text: string;
  readonly jwksUrl: string | null;
  readonly introspectionUrl: string | null;
};

const OPENID = "openid-configuration";
const OAUTH = "oauth-authorization-server";

/** Where an issuer may keep it, the most usual place first. With a path, OpenID Connect appends (Discovery, 4) and RFC 8414 (3.1) inserts. */
export function metadataUrls(issuer: string): readonly string[] {
  const { origin, pathname, search } = new URL(issuer);
  const path = pathname.replace(/\/$/, "");
  const urls = [
    `${origin}${path}/.well-known/${OPENID}${search}`,
    `${origin}/.well-known/${OAUTH}${path}${search}`,
    `${origin}/.well-known/${OPENID}${path}${search}`,
    `${origin}${path}/.well-known/${OAUTH}${search}`,
  ];
  return [...new Set(urls)];
}

/** @throws {IssuerError} when no place has one whose `issuer` is this one, byte for byte (RFC 8414, 3.3) */
export async function fetchMetadata(issuer: string, transport: IssuerTransport, before: IssuerMetadata | null): Promise<IssuerMetadata> {
  let reason = "";
  for (const url of metadataUrls(issuer)) {
    const found = await transport.findJson(url).catch((error: unknown) => {
      // A page for people in place of a document is a place that has none.
      if (!(error instanceof IssuerError) || error.isUnreachable) throw error;
      reason ||= error.message;
      return null;
    });
    if (found === null) continue;
    const { text, value } = found;
    if (before?.text === text) return before;
    if (value["issuer"] === issuer) return { text, jwksUrl: textAt(value, "jwks_uri"), introspectionUrl: textAt(value, "introspection_endpoint") };
    reason ||= `the metadata at '${url}' is that of '${printable(String(value["issuer"]))}'; write it in 'issuer' as it is there`;
  }
  throw new IssuerError(reason === "" ? `No metadata of '${issuer}' was found below it` : `No metadata of '${issuer}' can be used: ${reason}`);
}

function textAt(value: JsonObject, name: string): string | null {
  const text = value[name];
  return typeof text === "string" && text !== "" ? text : null;
}
