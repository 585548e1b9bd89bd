// Text for pages in which nothing of a stranger becomes markup.

const MARKUP = Symbol("markup");

/** Markup that came from a template of ours. */
export type Html = { readonly [MARKUP]: string };
type Value = string | number | null | Html | readonly Html[];

const ENTITIES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** A template: values are escaped unless they are markup themselves, null is nothing. Attributes must stand in double quotes. */
export function html(strings: TemplateStringsArray, ...values: readonly Value[]): Html {
  return { [MARKUP]: strings.reduce((text, part, i) => text + part + (i < values.length ? render(values[i] ?? null) : ""), "") };
}

/** Markup of our own that is no template. */
export function markup(text: string): Html {
  return { [MARKUP]: text };
}

export function htmlText(value: Html): string {
  return value[MARKUP];
}

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => ENTITIES[sign] ?? sign);
}

function render(value: Value): string {
  if (value === null) return "";
  if (typeof value === "string" || typeof value === "number") return escapeHtml(String(value));
  return MARKUP in value ? value[MARKUP] : value.map(htmlText).join("");
}
