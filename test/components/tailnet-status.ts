// The tailnet of a gateway that fares well, for tests of what is shown of it.
import type { TailnetStatus } from "../../src/tailscale/status.ts";

export const TAILNET: TailnetStatus = {
  mode: "userspace",
  state: "running",
  reason: "",
  serving: true,
  warnings: [],
  login_url: null,
  hostname: "ib-gateway",
  name: "ib-gateway.tail1234.ts.net",
  tailnet: "example.com",
  addresses: ["100.64.0.1", "fd7a:115c:a1e0::1"],
  user: null,
  tags: ["tag:trading"],
  key_expires_at: null,
  version: "1.102.5",
  socket: "/state/tailscale/tailscaled.sock",
  restarts: 0,
  seal: { enabled: true, active: true, open: [4003, 4004], refused: 65_533, foreign: [], error: "" },
};
