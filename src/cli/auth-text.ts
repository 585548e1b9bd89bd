// How the commands show OAuth. All that clients and people are called passes through plainLine.
import type { BrowserSessionInfo, OAuthClientInfo, OAuthGrantInfo } from "../authorization-server/grants.ts";
import { fromNow } from "./certificate-text.ts";
import { formatTable, type Cell } from "./table.ts";

const MAX_REDIRECTS = 2;
const KINDS: Record<OAuthClientInfo["kind"], string> = { static: "of the file", registered: "registered", document: "document" };

/** A table of the grants in their order; the last column is what `--grant` takes. */
export function formatGrants(grants: readonly OAuthGrantInfo[], now: Date, colors: boolean): string {
  if (grants.length === 0) return "No grants: nobody has let a client in\n";
  const server = serverColumn(grants);
  const rows = grants.map((each): Cell[] => [
    ...server.cells(each),
    each.user,
    each.client_name || each.client,
    each.resources.join(" "),
    each.scopes.join(" "),
    fromNow(each.created_at, now),
    each.expires_at === null ? "never" : fromNow(each.expires_at, now),
    each.id,
  ]);
  return formatTable([...server.headings, "USER", "CLIENT", "RESOURCES", "SCOPES", "GRANTED", "ENDS", "GRANT"], rows, colors);
}

/** A table of the browser sessions in their order; the last column is what `--session` takes. */
export function formatSessions(sessions: readonly BrowserSessionInfo[], now: Date, colors: boolean): string {
  if (sessions.length === 0) return "No sessions: nobody is logged in with a browser\n";
  const server = serverColumn(sessions);
  const rows = sessions.map((each): Cell[] => [
    ...server.cells(each),
    each.user,
    each.origin,
    fromNow(each.created_at, now),
    fromNow(each.expires_at, now),
    each.id,
  ]);
  return formatTable([...server.headings, "USER", "ORIGIN", "LOGGED IN", "ENDS", "SESSION"], rows, colors);
}

/** A table of the clients in their order; the last column is what `--client` takes. */
export function formatClients(clients: readonly OAuthClientInfo[], now: Date, colors: boolean): string {
  if (clients.length === 0) return "No clients: none is in the file, and none has registered\n";
  const server = serverColumn(clients);
  const rows = clients.map((each): Cell[] => [
    ...server.cells(each),
    each.name === "" ? { text: "no name", color: "dim" } : each.name,
    KINDS[each.kind],
    redirectsText(each.redirect_uris),
    each.created_at === null ? "" : fromNow(each.created_at, now),
    each.id,
  ]);
  return formatTable([...server.headings, "NAME", "KIND", "REDIRECTS", "SINCE", "CLIENT"], rows, colors);
}

function redirectsText(uris: readonly string[]): string {
  const more = uris.length - MAX_REDIRECTS;
  return [...uris.slice(0, MAX_REDIRECTS), ...(more > 0 ? [`+${more}`] : [])].join(" ");
}

/** Where several servers are one gateway's. */
function serverColumn(all: readonly { readonly server: string }[]): { headings: string[]; cells(each: { readonly server: string }): Cell[] } {
  const isNeeded = new Set(all.map(({ server }) => server)).size > 1;
  return { headings: isNeeded ? ["SERVER"] : [], cells: ({ server }) => (isNeeded ? [server] : []) };
}
