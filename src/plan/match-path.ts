// The form of a path in which routes are matched, and what is refused because two programs could read it differently.

// Nearly every path: no escapes, no empty segments, and no segment that begins with a dot or has parameters.
const PLAIN = /^(?=\/)(?:\/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~.!$&'()*+,=:@-]*)*\/?$/;
// Visible ASCII without backslash (which URL parsers take for a slash), fragment and query marks.
const ALLOWED = /^\/[!"$-.0-[\]-~/:-@]*$/;
const ESCAPE = /%([0-9A-Fa-f]{2})?/g;
const UNRESERVED = /[A-Za-z0-9_.~-]/;

/**
 * The path with the escapes of unreserved characters decoded and all others in upper case (RFC 3986, 6.2.2), so that no other
 * spelling leads past a route. Null when the path has no single meaning: an empty segment, or a dot segment in any spelling, which
 * upstreams resolve ("//host/admin" is even read as another path by URL parsers), an escape of a control character or a backslash,
 * a broken escape, or a character that a target may not have.
 */
export function matchPath(path: string): string | null {
  if (PLAIN.test(path)) return path;
  if (!ALLOWED.test(path) || path.includes("?") || path.includes("#")) return null;
  let bad = false;
  const normal = path.includes("%")
    ? path.replace(ESCAPE, (escape, digits: string | undefined) => {
        const code = digits === undefined ? 0 : Number.parseInt(digits, 16);
        if (code < 0x20 || code === 0x7f || code === 0x5c) bad = true;
        const character = String.fromCharCode(code);
        return UNRESERVED.test(character) ? character : escape.toUpperCase();
      })
    : path;
  return bad || !hasPlainSegments(normal) ? null : normal;
}

function hasPlainSegments(path: string): boolean {
  const last = path.lastIndexOf("/");
  let start = 1;
  while (start <= path.length) {
    const slash = path.indexOf("/", start);
    const end = slash === -1 ? path.length : slash;
    // The path may end with a slash: only there a segment is empty.
    if (end === start && start !== last + 1) return false;
    const segment = path.slice(start, end);
    // Some servers drop what follows a semicolon before they resolve dots.
    const name = segment.includes(";") ? segment.slice(0, segment.indexOf(";")) : segment;
    if (name === "." || name === "..") return false;
    start = end + 1;
  }
  return true;
}

/** The path as an upstream may read it that takes an escaped slash for a slash; null when that has no single meaning. */
export function withSlashes(path: string): string | null {
  return matchPath(path.replaceAll("%2F", "/"));
}
