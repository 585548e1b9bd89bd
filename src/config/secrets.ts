// Which values of the file are credentials, and the text of the file without them, for excerpts.
import type { ConfigDocument } from "./document.ts";
import { type Path, maskUrlPasswords } from "./problem.ts";

function isSecretKey(key: string, parentKey: string): boolean {
  return key === "authorization" || key === "sha256" || parentKey === "set_headers";
}

/** Whether the value must not be told: it is a credential, or may be one that was put in the wrong place. */
export function isSecret(path: Path): boolean {
  return isSecretKey(String(path.at(-1)), String(path.at(-2)));
}

// `Bearer ${TOKEN}` tells nothing; a default may.
const HARMLESS = /^["']?(?:[A-Za-z]+ )?(?:\$\{[A-Za-z0-9_]+(?::\?[^}]*)?\})+["']?$/;

function stars(text: string): string {
  return text.replaceAll(/[^\r\n]/g, "*");
}

/** The text of the file with credentials replaced by stars of the same length, so that columns stay right. `isParsed`: the syntax is right. */
export function maskSecrets(document: ConfigDocument, isParsed: boolean): string {
  let text = document.text;
  for (const [start, end] of document.scalarRanges(isSecretKey)) {
    const value = text.slice(start, end);
    if (!HARMLESS.test(value.trim())) text = text.slice(0, start) + stars(value) + text.slice(end);
  }
  // Where the syntax is broken the tree misses them.
  if (!isParsed)
    text = text.replaceAll(/(\b(?:authorization|sha256)["']?[ \t]*:[ \t]*)([^\r\n]*)/g, (all, key: string, value: string) =>
      HARMLESS.test(value.trim()) || value.includes("*") ? all : key + stars(value),
    );
  return maskUrlPasswords(text);
}
