// Text of strangers, made fit for a terminal, a log and the end of a sentence.

const MAX_CHARS = 500;

/** On one line, without control and formatting characters, at most `maxChars` characters long, without a final full stop. */
export function printable(text: string, maxChars = MAX_CHARS): string {
  const plain = text
    .replaceAll(/\p{Cf}/gu, "")
    .replaceAll(/[\p{Cc}\s]+/gu, " ")
    .trim();
  const short = plain.length > maxChars ? `${plain.slice(0, maxChars)}...` : plain;
  return short.replace(/(?<!\.)\.$/, "");
}

/** Bytes that are not printable ASCII, and the backslash, as `\C3`: two names never become one. */
export function asciiName(text: string): string {
  return text.replace(/[^!-[\]-~]+/g, (some) => Buffer.from(some).toString("hex").toUpperCase().replace(/../g, "\\$&"));
}
