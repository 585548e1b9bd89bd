// Finds the route of a request in a time that does not grow with the number of routes.
import { RE2JS } from "re2js";
import { matchPath } from "./match-path.ts";
import type { RoutePlan } from "./model.ts";

/** A route with what the caller wants back for it. */
export type RouteEntry<T> = { readonly route: RoutePlan; readonly value: T };

/** What is asked about a request: the first value of a header by its lower-case name, or null. */
export type HeaderSource = { header(name: string): string | null };

export type RouteTable<T> = {
  /**
   * The value of the first route that matches, in the order in which they were given; null when none does.
   * @param host lower case without port; empty when the request has none
   * @param path see `matchPath`
   */
  find(host: string, path: string, method: string, headers: HeaderSource): T | null;
  /** The methods with which the request would have been found, for Allow; empty when none helps. */
  methodsFor(host: string, path: string, headers: HeaderSource): Set<string>;
};

type Entry<T> = { readonly index: number; readonly route: RoutePlan; readonly value: T; readonly regex: RE2JS | null };
type List<T> = Entry<T>[];

/** The routes of one host pattern, by the shape of their path; every list is in order of precedence. */
class HostGroup<T> {
  readonly exact = new Map<string, List<T>>();
  readonly prefixes = new Map<string, List<T>>();
  /** Lengths of the prefixes in ascending order: the work is bounded by the file, not by the path. */
  prefixLengths: number[] = [];
  readonly any: List<T> = [];
  readonly regexes: List<T> = [];

  add(entry: Entry<T>): void {
    const { path } = entry.route;
    if (path.kind === "any") this.any.push(entry);
    else if (path.kind === "regex") this.regexes.push(entry);
    else {
      const text = matchPath(path.path) ?? path.path;
      push(path.kind === "exact" ? this.exact : this.prefixes, text, entry);
      if (path.kind === "prefix" && !this.prefixLengths.includes(text.length))
        this.prefixLengths = [...this.prefixLengths, text.length].toSorted((a, b) => a - b);
    }
  }
}

const SLASH = 47;

/** Compiles routes, given in order of precedence. @throws when a regular expression is none (the configuration was checked before). */
export function compileRoutes<T>(routes: readonly RouteEntry<T>[]): RouteTable<T> {
  const exactHosts = new Map<string, HostGroup<T>>();
  const wildcards = new Map<string, HostGroup<T>>();
  const anyHost = new HostGroup<T>();
  for (const [index, { route, value }] of routes.entries()) {
    const { host, path } = route;
    const wild = host?.startsWith("*.") === true;
    // A wildcard is kept by what follows its star: ".example.com".
    const group = host === null ? anyHost : groupOf(wild ? wildcards : exactHosts, wild ? host.slice(1) : host);
    group.add({ index, route, value, regex: path.kind === "regex" ? RE2JS.compile(path.source) : null });
  }

  function groupsFor(host: string): HostGroup<T>[] {
    const groups: HostGroup<T>[] = [];
    const exact = exactHosts.get(host);
    if (exact !== undefined) groups.push(exact);
    if (wildcards.size > 0) {
      for (let dot = host.indexOf(".", 1); dot !== -1; dot = host.indexOf(".", dot + 1)) {
        const group = wildcards.get(host.slice(dot));
        if (group !== undefined) groups.push(group);
      }
    }
    groups.push(anyHost);
    return groups;
  }

  return {
    find(host, path, method, headers) {
      let best: Entry<T> | null = null;
      for (const group of groupsFor(host)) {
        const exact = group.exact.get(path);
        if (exact !== undefined) best = better(exact, best, path, method, headers);
        for (const length of group.prefixLengths) {
          if (length > path.length) break;
          const prefix = prefixOf(group, path, length);
          if (prefix !== undefined) best = better(prefix, best, path, method, headers);
        }
        if (group.any.length > 0) best = better(group.any, best, path, method, headers);
        if (group.regexes.length > 0) best = better(group.regexes, best, path, method, headers);
      }
      return best === null ? null : best.value;
    },
    methodsFor(host, path, headers) {
      const methods = new Set<string>();
      for (const group of groupsFor(host)) {
        const lists = [group.exact.get(path), ...group.prefixLengths.map((length) => prefixOf(group, path, length)), group.any, group.regexes];
        for (const entry of lists.flatMap((list) => list ?? [])) {
          if (entry.route.methods === null || !matches(entry, path, null, headers)) continue;
          for (const method of entry.route.methods) methods.add(method);
        }
      }
      return methods;
    },
  };
}

/** The first entry of the list that matches, when it precedes `best`. */
function better<T>(list: List<T>, best: Entry<T> | null, path: string, method: string, headers: HeaderSource): Entry<T> | null {
  for (const entry of list) {
    if (best !== null && entry.index > best.index) return best;
    if (matches(entry, path, method, headers)) return entry;
  }
  return best;
}

function matches<T>({ route, regex }: Entry<T>, path: string, method: string | null, headers: HeaderSource): boolean {
  if (method !== null && route.methods !== null && !route.methods.has(method)) return false;
  for (const [name, wanted] of route.headers) {
    const value = headers.header(name);
    if (value === null || (wanted !== "*" && value !== wanted)) return false;
  }
  return regex === null || regex.matcher(path).find();
}

/** The routes whose prefix is the first `length` characters of the path, when they end at a segment's end. */
function prefixOf<T>(group: HostGroup<T>, path: string, length: number): List<T> | undefined {
  if (length === path.length) return group.prefixes.get(path);
  if (length > path.length || (path.charCodeAt(length) !== SLASH && path.charCodeAt(length - 1) !== SLASH)) return undefined;
  return group.prefixes.get(path.slice(0, length));
}

function groupOf<T>(groups: Map<string, HostGroup<T>>, key: string): HostGroup<T> {
  let group = groups.get(key);
  if (group === undefined) groups.set(key, (group = new HostGroup()));
  return group;
}

function push<T>(map: Map<string, List<T>>, key: string, entry: Entry<T>): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [entry]);
  else list.push(entry);
}
