// The Prometheus text format, version 0.0.4.
import type { Histogram } from "./histogram.ts";

export type Labels = Readonly<Record<string, string>>;

export const EXPOSITION_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** Collects the lines of one exposition: a family with `family()`, then its samples. */
export class Exposition {
  #text = "";

  /** Begins a metric family; the samples that follow belong to it. */
  family(name: string, type: "counter" | "gauge" | "histogram", help: string): void {
    this.#text += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
  }

  sample(name: string, labels: Labels, value: number): void {
    this.#text += `${name}${formatLabels(labels)} ${value}\n`;
  }

  /** A family of one sample without labels. */
  single(name: string, type: "counter" | "gauge", help: string, value: number): void {
    this.family(name, type, help);
    this.sample(name, {}, value);
  }

  histogram(name: string, labels: Labels, histogram: Histogram): void {
    let count = 0;
    histogram.bounds.forEach((bound, i) => {
      count += histogram.counts[i] ?? 0;
      this.sample(`${name}_bucket`, { ...labels, le: String(bound) }, count);
    });
    count += histogram.counts[histogram.bounds.length] ?? 0;
    this.sample(`${name}_bucket`, { ...labels, le: "+Inf" }, count);
    this.sample(`${name}_sum`, labels, histogram.sumSeconds);
    this.sample(`${name}_count`, labels, count);
  }

  text(): string {
    return this.#text;
  }
}

function formatLabels(labels: Labels): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`);
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
}
