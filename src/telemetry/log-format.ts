// The readable form of a log line, for terminals.

const COLORS: Record<string, string> = { fatal: "41", error: "31", warn: "33", info: "32", debug: "36", trace: "90" };

/**
 * `10:20:30.123 INFO  Message key=value`, from one line of JSON; below it the stack of an error and a `text` of several lines, which also tells the `problems`.
 * A line that is not a JSON object stays as it is.
 * Control characters of values are shown escaped, so that nobody who gets a text into the log can steer the terminal.
 */
export function formatLogLine(line: string, colors: boolean): string {
  const fields = parseObject(line);
  if (fields === null) return line;
  const { time, level, msg, ...rest } = fields;
  const word = asText(level);
  const below: string[] = [];
  const { err, text: block } = rest;
  if (typeof block === "string" && block.includes("\n")) {
    delete rest["text"];
    delete rest["problems"];
    // Tabs become spaces, so that carets stay below their words.
    below.push(
      block
        .trimEnd()
        .replaceAll("\t", "    ")
        .replaceAll(/^(?=.)/gm, "  "),
    );
  }
  if (isObject(err)) {
    const isSevere = word === "error" || word === "fatal";
    delete rest["err"];
    // Where in the code it was raised helps only with what should not happen.
    if (isSevere) below.push(asText(err["stack"]) || asText(err["message"]));
    else rest["err"] = asText(err["message"]);
  }
  const paint = (code: string, text: string): string => (colors && text !== "" ? `\u001b[${code}m${text}\u001b[0m` : text);
  const pairs = Object.entries(rest).map(([key, value]) => `${key}=${formatValue(value)}`);
  let text = `${paint("90", localTime(time))} ${paint(COLORS[word] ?? "0", word.toUpperCase().padEnd(5))} ${escapeControls(asText(msg), true)}`;
  if (pairs.length > 0) text += ` ${paint("90", pairs.join(" "))}`;
  for (const part of below) text += `\n${escapeControls(part, true)}`;
  return `${text}\n`;
}

function parseObject(line: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(line);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function asText(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function localTime(time: unknown): string {
  const date = new Date(typeof time === "string" ? time : Number.NaN);
  if (Number.isNaN(date.getTime())) return "";
  return `${date.toTimeString().slice(0, 8)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

function formatValue(value: unknown): string {
  if (typeof value !== "string") return escapeControls(JSON.stringify(value), false);
  return /^[^\s"=\p{Cc}]+$/u.test(value) ? value : escapeControls(JSON.stringify(value), false);
}

function escapeControls(text: string, keepLines: boolean): string {
  return text.replaceAll(/\p{Cc}/gu, (char) => (keepLines && char === "\n" ? char : `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`));
}
