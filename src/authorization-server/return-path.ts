// Where a login leads back to: never to another site.

const MAX_LENGTH = 2_048;
const PAGES = "/.sidegate/";

/** The path and query when they stay on the origin and outside of our own pages, otherwise `/`. */
export function safeReturnPath(text: string | null, origin: string): string {
  // Browsers take a backslash for a slash and skip tabs and line ends (WHATWG URL, 4.4).
  if (text === null || text.length > MAX_LENGTH || !/^\/(?!\/)[!-[\]-~]*$/.test(text)) return "/";
  const url = URL.parse(text, origin);
  // `/.//host` is `//host` once its dots are gone.
  if (url === null || url.origin !== origin || url.pathname.startsWith("//")) return "/";
  return url.pathname.startsWith(PAGES) ? "/" : `${url.pathname}${url.search}`;
}
