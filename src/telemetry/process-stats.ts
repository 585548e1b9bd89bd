// What the process itself costs: processor time, memory, file descriptors, and how late its event loop runs.
import { readdir, readFile } from "node:fs/promises";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { cpuUsage, memoryUsage } from "node:process";
import type { Exposition } from "./exposition.ts";

const RESOLUTION_MS = 20;

export type ProcessStats = { write(out: Exposition): Promise<void>; close(): void };

/** Begins to watch the event loop. Its figures cover the time since they were last written. Names are those that Prometheus clients share. */
export function openProcessStats(): ProcessStats {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delay.enable();
  let last = performance.eventLoopUtilization();
  return {
    async write(out) {
      out.family("sidegate_event_loop_lag_seconds", "gauge", "How late the event loop ran, since the last scrape.");
      for (const quantile of [0.5, 0.99, 1]) {
        // A timer of RESOLUTION_MS is measured, so that much is no lag.
        const ns = delay.count === 0 ? 0 : Math.max(0, delay.percentile(quantile * 100) - RESOLUTION_MS * 1e6);
        out.sample("sidegate_event_loop_lag_seconds", { quantile: String(quantile) }, ns / 1e9);
      }
      delay.reset();
      const now = performance.eventLoopUtilization();
      out.single(
        "sidegate_event_loop_utilization_ratio",
        "gauge",
        "Share of the time that the event loop was busy, since the last scrape.",
        performance.eventLoopUtilization(now, last).utilization,
      );
      last = now;
      const cpu = cpuUsage();
      out.single("process_cpu_seconds_total", "counter", "Processor time, user and system.", (cpu.user + cpu.system) / 1e6);
      const memory = memoryUsage();
      out.single("process_resident_memory_bytes", "gauge", "Resident memory.", memory.rss);
      out.single("process_start_time_seconds", "gauge", "Start of the process since the epoch.", performance.timeOrigin / 1_000);
      out.single("nodejs_heap_size_total_bytes", "gauge", "Size of the heap.", memory.heapTotal);
      out.single("nodejs_heap_size_used_bytes", "gauge", "Used part of the heap.", memory.heapUsed);
      out.single("nodejs_external_memory_bytes", "gauge", "Memory of buffers outside the heap.", memory.external);
      await writeDescriptors(out);
    },
    close: () => void delay.disable(),
  };
}

// Only Linux has /proc; elsewhere these two are left out.
async function writeDescriptors(out: Exposition): Promise<void> {
  try {
    const open = await readdir("/proc/self/fd");
    const limit = /^Max open files\s+(\d+)/m.exec(await readFile("/proc/self/limits", "utf8"))?.[1];
    out.single("process_open_fds", "gauge", "Open file descriptors.", open.length);
    if (limit !== undefined) out.single("process_max_fds", "gauge", "Most open file descriptors.", Number(limit));
  } catch {
    // No /proc.
  }
}
