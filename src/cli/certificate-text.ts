// How the commands show a certificate.
import { isNearEnd } from "../admin/ready.ts";
import type { CertificateStatus } from "../admin/status.ts";
import { formatDuration } from "../lib/duration.ts";
import type { Cell } from "./table.ts";

const MAX_NAMES = 2;
const MAX_PATH = 36;
/** Of a certificate of tailscaled while the node's name is not known. */
export const NO_NAME = "(name not known yet)";

/** Where it comes from: `ACME`, `Tailscale`, `internal CA`, or the end of its file's path. */
export function sourceText({ source, file }: CertificateStatus): string {
  if (source === "acme") return "ACME";
  if (source === "tailscale") return "Tailscale";
  if (source === "internal") return "internal CA";
  const path = file ?? "file";
  return path.length > MAX_PATH ? `…${path.slice(1 - MAX_PATH)}` : path;
}

/** The first names, and how many more there are. */
export function namesText({ names, file }: CertificateStatus): string {
  const more = names.length - MAX_NAMES;
  return [...names.slice(0, MAX_NAMES), ...(more > 0 ? [`+${more}`] : [])].join(" ") || (file ?? NO_NAME);
}

/** `in 40d`; yellow near the end, red after it. */
export function expiryCell({ valid_from, expires_at }: CertificateStatus, now: Date): Cell {
  if (expires_at === null) return { text: "not issued yet", color: "yellow" };
  const text = fromNow(expires_at, now);
  if (Date.parse(expires_at) <= now.getTime()) return { text: `expired ${text}`, color: "red" };
  return isNearEnd(valid_from, expires_at, now.getTime()) ? { text, color: "yellow" } : text;
}

/** When it is renewed, and by whom where that is not us. */
export function renewalText({ source, renews_at }: CertificateStatus, now: Date): string {
  if (renews_at !== null) return Date.parse(renews_at) > now.getTime() ? fromNow(renews_at, now) : "due";
  return source === "internal" ? "by itself" : source === "file" ? "with its file" : "";
}

/** `in 4d`, `30s ago`. */
export function fromNow(time: string, now: Date): string {
  const leftMs = Date.parse(time) - now.getTime();
  return leftMs > 0 ? `in ${formatDuration(leftMs)}` : `${formatDuration(-leftMs)} ago`;
}
